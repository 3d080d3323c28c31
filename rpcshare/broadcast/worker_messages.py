"""Messages between the processes of one server.

Each process has an inbox: a pair of Unix datagram sockets, made before any of them was forked. Everybody
can send to one end, and its owner reads the other; the kernel keeps messages whole and in order. A process
that takes another's place has the same inbox, so nobody has to connect to anybody, and none but these
processes can: nothing of it is in the file system or on the network.

A message is a hint, as in :mod:`~rpcshare.broadcast.broadcaster`: one that cannot be sent is dropped, and
whoever sent it is told so.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

__all__ = [
    "MAX_MESSAGE",
    "Gone",
    "Member",
    "Outbox",
    "Topic",
    "WorkerMessages",
    "WorkerSockets",
    "packed",
    "unpacked",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_MESSAGE = 384 * 1024
"""Of a message, in bytes, with what is around it."""

_KERNEL_BUFFER = 2**20  # bytes that may be on their way to one inbox; systems may allow less
_LARGEST_QUEUE = 4 * 2**20  # bytes that wait here for one inbox
_AT_ONCE = 64  # messages that are read before something else has its turn


class Member(NamedTuple):
    """A process of the server."""

    slot: int
    """Whose inbox it has: its place, which another takes when it ends."""
    run: int
    """Tells it from those that had the place before."""


class Topic(Generic[T]):
    """What messages may be about, and what is in one."""

    def __init__(self, name: str, kind: type[T]) -> None:
        self.name = name
        self._decoder = msgspec.msgpack.Decoder(kind)

    def read(self, body: msgspec.Raw) -> T:
        """Return what a message about it says."""
        return self._decoder.decode(body)


class Hello(msgspec.Struct, frozen=True):
    """The sender reads its inbox, and has not heard of the one that it says so to."""


class Gone(msgspec.Struct, frozen=True):
    """A process has ended."""

    slot: int
    run: int


HELLO: Final = Topic("hello", Hello)
GONE: Final = Topic("gone", Gone)


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """A message on its way."""

    slot: int
    run: int
    topic: str
    body: msgspec.Raw

    @property
    def sender(self) -> Member:
        """Who sent it."""
        return Member(self.slot, self.run)


_letters = msgspec.msgpack.Decoder(Letter)


def packed(sender: Member, topic: Topic[T], message: T) -> bytes:
    """Return ``message`` as it is sent."""
    body = msgspec.Raw(msgspec.msgpack.encode(message))
    return msgspec.msgpack.encode(Letter(*sender, topic.name, body))


def unpacked(data: bytes) -> Letter:
    """Return what :func:`packed` made."""
    return _letters.decode(data)


class WorkerSockets:
    """The inboxes of all processes: made by the one that forks the others."""

    def __init__(self, count: int) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        for _ in range(count):
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._pairs.append(pair)
            for end in pair:
                end.setblocking(False)
                with suppress(OSError):  # the system has a limit of its own
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
        self._buffer = memoryview(bytearray(MAX_MESSAGE))

    def __len__(self) -> int:
        return len(self._pairs)

    def inbox(self, slot: int) -> socket.socket:
        """Return what the owner of an inbox reads."""
        return self._pairs[slot][0]

    def outbox(self, slot: int) -> socket.socket:
        """Return what others write to."""
        return self._pairs[slot][1]

    def receive(self, slot: int) -> bytes | None:
        """Take the next message out of an inbox; None if it is empty."""
        try:
            size = self.inbox(slot).recv_into(self._buffer)
        except BlockingIOError:
            return None
        return bytes(self._buffer[:size])

    def empty(self, slot: int) -> None:
        """Throw away what is in an inbox."""
        while self.receive(slot) is not None:
            pass

    def keep_inbox(self, slot: int) -> None:
        """Close the inboxes of all others: what a process does that has been forked."""
        for other, (inbox, _) in enumerate(self._pairs):
            if other != slot:
                inbox.close()

    def close(self) -> None:
        """Close all of them."""
        for pair in self._pairs:
            for end in pair:
                end.close()


class Outbox:
    """What one process sends to one inbox: what the kernel does not take yet waits, within bounds."""

    def __init__(self, target: socket.socket) -> None:
        self.target = target
        self._waiting: deque[bytes] = deque()
        self._size = 0  # of them, in bytes

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def send(self, data: bytes) -> bool:
        """Send a message behind those that wait; return whether it will arrive unless its reader ends."""
        if len(data) > MAX_MESSAGE or self._size + len(data) > _LARGEST_QUEUE:
            return False
        self._waiting.append(data)
        self._size += len(data)
        # If more than it waits, the kernel would take none.
        return len(self._waiting) > 1 or self.flush()

    def flush(self) -> bool:
        """Have the kernel take what it can; return whether nothing had to be dropped."""
        is_whole = True
        while self._waiting:
            try:
                self.target.send(self._waiting[0])
            except BlockingIOError:
                break
            except OSError:  # nobody has the other end, or the system carries none that is so large
                is_whole = False
            self._size -= len(self._waiting.popleft())
        return is_whole

    def clear(self) -> None:
        """Drop what waits."""
        self._waiting.clear()
        self._size = 0


class WorkerMessages:
    """One process's own inbox, and its way to the others."""

    def __init__(self, boxes: WorkerSockets, me: Member) -> None:
        """Read the box of ``me`` once it is started; until then, nothing is heard."""
        self.me = me
        self._boxes = boxes
        self._outboxes = [Outbox(boxes.outbox(slot)) for slot in range(len(boxes))]
        self._runs: dict[int, int] = {}  # of the others that are there, by slot
        self._handlers: dict[str, Callable[[Letter], None]] = {}
        self._on_joined: list[Callable[[int], object]] = []
        self._on_left: list[Callable[[Member], object]] = []
        self._on_free: list[Callable[[int], object]] = []
        self._loop = asyncio.get_running_loop()
        self.on(HELLO, self._joined)
        self.on(GONE, self._left)

    @property
    def others(self) -> Collection[int]:
        """The slots of the processes that read their inboxes, without this one."""
        return self._runs.keys()

    def is_there(self, member: Member) -> bool:
        """Whether ``member`` has not ended."""
        return self._runs.get(member.slot) == member.run

    def on(self, topic: Topic[T], handle: Callable[[Member, T], None]) -> None:
        """Call ``handle`` with each message about ``topic`` and its sender."""
        self._handlers[topic.name] = lambda letter: handle(letter.sender, topic.read(letter.body))

    def on_joined(self, callback: Callable[[int], object]) -> None:
        """Call ``callback`` with the slot of each process that is there from now on."""
        self._on_joined.append(callback)

    def on_left(self, callback: Callable[[Member], object]) -> None:
        """Call ``callback`` with each that is there no more, before its place is taken."""
        self._on_left.append(callback)

    def on_free(self, callback: Callable[[int], object]) -> None:
        """Call ``callback`` with the slot of each to whom the way was blocked, and is free again."""
        self._on_free.append(callback)

    def start(self) -> None:
        """Begin to read, and tell everybody."""
        inbox = self._boxes.inbox(self.me.slot)
        self._loop.add_reader(inbox.fileno(), self._read)
        others = [slot for slot in range(len(self._boxes)) if slot != self.me.slot]
        self._send(others, packed(self.me, HELLO, Hello()))

    def post(self, slots: Collection[int], topic: Topic[T], message: T) -> list[int]:
        """Send ``message`` to ``slots``; return those of them to which the way is blocked.

        Messages of one sender to one slot arrive in their order. To a slot of which nobody is known to be
        there, nothing is sent.
        """
        slots = [slot for slot in slots if slot in self._runs]
        return self._send(slots, packed(self.me, topic, message)) if slots else []

    def post_all(self, topic: Topic[T], message: T) -> None:
        """Send ``message`` to all others that are there."""
        self.post(self._runs, topic, message)

    def report(self, slot: int, topic: Topic[T], message: T) -> None:
        """Send ``message`` to ``slot``, which does not say whether it is there."""
        self._send([slot], packed(self.me, topic, message))

    def close(self) -> None:
        """Read no more, and send no more."""
        self._loop.remove_reader(self._boxes.inbox(self.me.slot).fileno())
        for outbox in self._outboxes:
            self._loop.remove_writer(outbox.target.fileno())

    def _send(self, slots: Collection[int], data: bytes) -> list[int]:
        blocked = []
        for slot in slots:
            outbox = self._outboxes[slot]
            if not outbox.send(data):
                blocked.append(slot)
            if len(outbox) == 1:
                self._loop.add_writer(outbox.target.fileno(), self._write, slot)
        return blocked

    def _write(self, slot: int) -> None:
        outbox = self._outboxes[slot]
        outbox.flush()
        if not len(outbox):
            self._loop.remove_writer(outbox.target.fileno())
            for callback in self._on_free:
                callback(slot)

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            data = self._boxes.receive(self.me.slot)
            if data is None:
                return
            letter = unpacked(data)
            handle = self._handlers.get(letter.topic)
            try:
                if handle is not None:
                    handle(letter)
            except Exception:
                logger.exception("A message about %s could not be dealt with", letter.topic)

    def _joined(self, sender: Member, _message: Hello) -> None:
        if self.is_there(sender):
            return
        if sender.slot in self._runs:  # of whose end word is on its way yet
            self._forget(Member(sender.slot, self._runs[sender.slot]))
        self._runs[sender.slot] = sender.run
        self._send([sender.slot], packed(self.me, HELLO, Hello()))
        for callback in self._on_joined:
            callback(sender.slot)

    def _left(self, _sender: Member, message: Gone) -> None:
        member = Member(message.slot, message.run)
        if self.is_there(member):
            self._forget(member)

    def _forget(self, member: Member) -> None:
        del self._runs[member.slot]
        outbox = self._outboxes[member.slot]
        outbox.clear()
        self._loop.remove_writer(outbox.target.fileno())
        for callback in self._on_left:
            callback(member)
