"""Mailboxes of processes that are all this one."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from rpcshare.broadcast.worker_messages import GONE, Gone, Member, WorkerMessages, WorkerSockets, packed

__all__ = ["Office", "until", "with_office"]


class Office:
    """The inboxes, those who read them, and what a supervisor does."""

    def __init__(self, slots: int) -> None:
        self.boxes = WorkerSockets(slots)
        self._runs = count(1)
        self._inboxes: list[WorkerMessages] = []

    def reader(self, slot: int) -> WorkerMessages:
        """Return an inbox that is to be started."""
        inbox = WorkerMessages(self.boxes, Member(slot, next(self._runs)))
        self._inboxes.append(inbox)
        return inbox

    def end(self, inbox: WorkerMessages) -> None:
        """Have the process of ``inbox`` end, and the others told."""
        inbox.close()
        self._inboxes.remove(inbox)
        self.boxes.empty(inbox.me.slot)
        for other in self._inboxes:
            self.boxes.outbox(other.me.slot).send(packed(Member(99, 0), GONE, Gone(*inbox.me)))

    def close(self) -> None:
        for inbox in self._inboxes:
            inbox.close()
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
