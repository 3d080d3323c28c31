"""A session in one HTTP request: all that one side has to say, then all that the other answers.

The body of either is one JSON message a line. Promise pipelining makes a batch worth more than one call; what
it cannot do is go back and forth (PROTOCOL.md, "HTTP batch").
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from rpcshare.rpc.codec import JSON
from rpcshare.rpc.connection import Connection
from rpcshare.rpc.errors import RpcError
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.transport import TransportClosedError

__all__ = ["BatchClientTransport", "answer_batch"]


def _lines(body: bytes) -> deque[bytes]:
    return deque(line for line in body.split(b"\n") if line.strip())


async def answer_batch(
    body: bytes,
    main: object,
    *,
    limits: Limits,
    describe_error: Callable[[BaseException], RpcError],
) -> bytes:
    """Carry out a batch, and return the body that answers it.

    Args:
        body: of the request.
        main: the target that the batch finds as its remote main.
        limits: how much the batch may ask; ``message_bytes`` is for each message.
        describe_error: as for a :class:`~rpcshare.rpc.connection.Connection`.
    """
    transport = _BatchServerTransport(_lines(body))
    connection = Connection(
        transport, main, codec=JSON, limits=limits, describe_error=describe_error, answers_once=True
    )
    await connection.run()
    return b"\n".join(transport.sent)


class _BatchServerTransport:
    """Hands out the messages of a request, and keeps those of the answer."""

    def __init__(self, frames: deque[bytes]) -> None:
        self._frames = frames
        self.sent: list[bytes] = []

    async def receive(self) -> bytes | str:
        """Return the next message of the request."""
        if not self._frames:
            raise TransportClosedError("the batch is over")
        return self._frames.popleft()

    async def send(self, frame: bytes, *, text: bool) -> None:  # noqa: ARG002 -- a line is text
        """Add a message to the answer."""
        self.sent.append(frame)

    async def close(self, code: int, reason: str) -> None:
        """There is nothing to close: the answer is complete."""


class BatchClientTransport:
    """Gathers what is said until there is a pause, posts it, and hands out the answer.

    Args:
        post: sends the body of a request and returns that of the answer. Raises TransportClosedError.
    """

    def __init__(self, post: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._post = post
        self._to_send: list[bytes] = []
        self._answer: deque[bytes] | None = None
        self._posted: asyncio.Task[bytes] | None = None
        self._said = asyncio.Event()

    async def receive(self) -> bytes | str:
        """Return the next message of the answer."""
        if self._answer is None:
            await self._said.wait()
            # Whoever awaits several promises at once pulls each of them in a turn of its own.
            said = -1
            while said != len(self._to_send):
                said = len(self._to_send)
                for _ in range(3):
                    await asyncio.sleep(0)
            self._posted = asyncio.create_task(self._post_all())
            self._answer = _lines(await self._posted)
        if not self._answer:
            raise TransportClosedError("the batch is over")
        return self._answer.popleft()

    async def _post_all(self) -> bytes:
        return await self._post(b"\n".join(self._to_send))

    async def send(self, frame: bytes, *, text: bool) -> None:  # noqa: ARG002 -- a line is text
        """Add a message to the request. After that has been sent, nobody would read it."""
        if self._posted is None:
            self._to_send.append(frame)
            self._said.set()

    async def close(self, code: int, reason: str) -> None:  # noqa: ARG002 -- HTTP has no such thing
        """Give up on an answer that has not come."""
        if self._posted is not None:
            self._posted.cancel()
