"""What carries frames between two peers, and the one that stays in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

__all__ = ["BatchOverError", "MemoryTransport", "Transport", "TransportClosedError", "memory_pair"]


class TransportClosedError(Exception):
    """The peer is gone: no frame will come and none can be sent.

    Attributes:
        code: of the WebSocket close frame that the peer sent, if it sent one.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class BatchOverError(Exception):
    """The peer has said all that it will, but what it asked for still gets its answers.

    Attributes:
        reason: what whoever waits for the peer is told.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Transport(Protocol):
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

    async def close(self, code: int, reason: str) -> None:
        """End the connection, with a WebSocket close code and reason. Again is no error."""
        ...


class MemoryTransport:
    """One end of a pair made by :func:`memory_pair`."""

    def __init__(self) -> None:
        self.peer: MemoryTransport | None = None
        self._frames: deque[bytes] = deque()
        self._closed: str | None = None
        self._arrived = asyncio.Event()

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
