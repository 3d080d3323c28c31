"""What carries frames between two peers, and the one that stays in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from rpcshare.rpc.waiting import Signal

__all__ = [
    "BatchOverError",
    "Closable",
    "DirectTransport",
    "MemoryTransport",
    "Receiver",
    "Transport",
    "TransportClosedError",
    "memory_pair",
]


class TransportClosedError(Exception):
    """The peer is gone: no frame will come and none can be sent.

    Attributes:
        code: of the WebSocket close frame that the peer sent, if it sent one.
        reason: what that frame says; empty without one.
    """

    def __init__(self, message: str, *, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class BatchOverError(Exception):
    """The peer has said all that it will, but what it asked for still gets its answers.

    Attributes:
        reason: what whoever waits for the peer is told.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Closable(Protocol):
    """What a session needs of any transport."""

    async def close(self, code: int, reason: str) -> None:
        """End the connection, with a WebSocket close code and reason. Again is no error."""
        ...


class Transport(Closable, Protocol):
    """Carries whole frames, in order, both ways. One task receives, another sends."""

    async def receive(self) -> bytes | str:
        """Return the next frame. Returns at once, without a switch of tasks, if one is there.

        Raises:
            TransportClosedError: the connection is over; the message says how it ended.
            BatchOverError: the peer has had its say; frames can still be sent.
        """
        ...

    async def send(self, frame: bytes, *, text: bool) -> None:
        """Send one frame; returns when it is worth sending more.

        Raises:
            TransportClosedError: the connection is over.
        """
        ...


class Receiver(Protocol):
    """Who is told what happens on a :class:`DirectTransport`."""

    def frames_received(self, frames: Sequence[bytes | str]) -> None:
        """Take frames that arrived together, in order."""
        ...

    def writable(self) -> None:
        """Hear that most of what was written has left."""
        ...

    def holding(self, size: int) -> None:
        """Hear how many bytes have arrived of a message that is not whole. Not every transport tells."""
        ...

    def transport_lost(self, error: TransportClosedError) -> None:
        """Hear that no frame will come and none can be sent. Told once."""
        ...


class DirectTransport(Closable, Protocol):
    """Carries whole frames without a task or a queue: it calls, and takes what is written at once."""

    def attach(self, receiver: Receiver, *, text: bool) -> None:
        """Tell ``receiver`` of all that happens from now on; frames that have arrived are told at once.

        Args:
            receiver: who is told.
            text: whether frames of text may be told as the bytes that they are. Else they are strings,
                and those of bytes bytes. In a string, bytes that are not UTF-8 are lone surrogates.
        """
        ...

    def write(self, frames: Sequence[bytes], *, text: bool) -> int:
        """Send frames, together; return how many bytes wait to leave. What cannot be sent is dropped."""
        ...

    def pause(self) -> None:
        """Receive no more for now. Frames that have arrived already may still be told."""
        ...

    def resume(self) -> None:
        """Receive again."""
        ...


class MemoryTransport:
    """One end of a pair made by :func:`memory_pair`."""

    def __init__(self) -> None:
        self.peer: MemoryTransport | None = None
        self._frames: deque[bytes] = deque()
        self._closed: str | None = None
        self._arrived = Signal()

    async def receive(self) -> bytes | str:
        """Return the next frame that the other end sent."""
        while not self._frames:
            if self._closed is not None:
                raise TransportClosedError(self._closed)
            self._arrived.clear()
            await self._arrived.wait()
        return self._frames.popleft()

    async def send(self, frame: bytes, *, text: bool) -> None:  # noqa: ARG002 -- both kinds are bytes here
        """Hand a frame to the other end."""
        if self._closed is not None or self.peer is None:
            raise TransportClosedError(self._closed or "no peer")
        self.peer._frames.append(frame)  # noqa: SLF001 -- the other half of this
        self.peer._arrived.set()  # noqa: SLF001

    async def close(self, code: int, reason: str) -> None:
        """End the connection for both ends."""
        for end in (self, self.peer):
            if end is not None and end._closed is None:  # noqa: SLF001
                end._closed = f"{code} {reason}"  # noqa: SLF001
                end._arrived.set()  # noqa: SLF001


def memory_pair() -> tuple[MemoryTransport, MemoryTransport]:
    """Return two transports, each of which receives what the other sends."""
    one, other = MemoryTransport(), MemoryTransport()
    one.peer, other.peer = other, one
    return one, other
