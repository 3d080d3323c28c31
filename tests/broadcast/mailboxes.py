"""Mailboxes of processes that are all this one."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from rpcshare.broadcast.worker_messages import GONE, Gone, Member, WorkerMessages, WorkerSockets, packed

__all__ = ["Office", "until", "with_office"]


class Office:
    """The mailboxes, those who read them, and what a supervisor does."""

    def __init__(self, slots: int) -> None:
        self.boxes = WorkerSockets(slots)
        self._runs = count(1)
        self._mailboxes: list[WorkerMessages] = []

    def reader(self, slot: int) -> WorkerMessages:
        """Return a mailbox that is to be started."""
        mailbox = WorkerMessages(self.boxes, Member(slot, next(self._runs)))
        self._mailboxes.append(mailbox)
        return mailbox

    def end(self, mailbox: WorkerMessages) -> None:
        """Have the process of ``mailbox`` end, and the others told."""
        mailbox.close()
        self._mailboxes.remove(mailbox)
        self.boxes.empty(mailbox.me.slot)
        for other in self._mailboxes:
            self.boxes.outbox(other.me.slot).send(packed(Member(99, 0), GONE, Gone(*mailbox.me)))

    def close(self) -> None:
        for mailbox in self._mailboxes:
            mailbox.close()
        self.boxes.close()


@contextmanager
def with_office(slots: int) -> Iterator[Office]:
    office = Office(slots)
    try:
        yield office
    finally:
        office.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition()`` holds, or 3 s."""
    async with asyncio.timeout(3):
        while not condition():  # noqa: ASYNC110 -- who waits for it is told nothing
            await asyncio.sleep(0.001)
