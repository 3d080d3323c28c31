"""A session in one HTTP request: all that one side has to say, then all that the other answers.

The body of either is one JSON message a line. Promise pipelining makes a batch worth more than one call; what
it cannot do is go back and forth (PROTOCOL.md, "HTTP batch").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from anyio.lowlevel import checkpoint

from rpcshare.rpc.codec import JSON
from rpcshare.rpc.connection import Connection
from rpcshare.rpc.errors import RpcError, SessionClosedError
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.session import DEFAULT_LIMITS, OnSendError, redact_error
from rpcshare.rpc.transport import BatchOverError
from rpcshare.rpc.waiting import Signal

__all__ = ["BatchClientTransport", "BatchServerTransport", "answer_batch"]

# A body is there at once, but its reader is not alone on the event loop: after so many messages it makes way.
MESSAGES_AT_A_TIME = 64

# An answer leaves in parts of about so many bytes.
PART_SIZE = 64 * 1024

# Who awaits several promises at once asks for each in a task of its own, and what one asks for reaches the
# transport by way of the connection's writer. After so many turns of the event loop without a message, all
# have asked.
QUIET_TURNS = 3


async def answer_batch(
    body: bytes,
    main: object,
    *,
    limits: Limits = DEFAULT_LIMITS,
    describe_error: Callable[[BaseException], RpcError] = redact_error,
    on_send_error: OnSendError | None = None,
    call_grace: float = 30.0,
) -> bytes:
    """Carry out a batch, and return the body that answers it.

    Args:
        body: of the request.
        main: the target that the batch finds as its remote main.
        limits: how much the batch may ask; ``message_bytes`` is for each message.
        describe_error: as for a :class:`~rpcshare.rpc.connection.Connection`.
        on_send_error: likewise.
        call_grace: how many seconds the calls may take. What has not returned then is not answered.
    """
    answer = bytearray()

    async def write(part: bytes) -> None:
        answer.extend(part)

    transport = BatchServerTransport(body, write)
    connection = Connection(
        transport,
        main,
        codec=JSON,
        limits=limits,
        describe_error=describe_error,
        on_send_error=on_send_error,
        call_grace=call_grace,
    )
    await connection.run()
    return bytes(answer)


class BatchServerTransport:
    """Hands out the messages of a request, and makes those of the answer into its body.

    Args:
        body: of the request.
        write: takes a part of the body of the answer, and returns when it is worth having more.
    """

    def __init__(self, body: bytes, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._messages = _Messages(body)
        self._write = write
        self._part = bytearray()
        # What goes before the next message: they are separated, not ended, by a line feed.
        self._separator = b""

    async def receive(self) -> bytes | str:
        """Return the next message of the request."""
        message = await self._messages.take()
        if message is None:
            raise BatchOverError(RpcError("the peer has sent its whole batch, and cannot be asked"))
        return message

    async def send(self, frame: bytes, *, text: bool) -> None:  # noqa: ARG002 -- a line is text
        """Add a message to the answer."""
        self._part += self._separator + frame
        self._separator = b"\n"
        if len(self._part) >= PART_SIZE:
            await self._flush()

    async def close(self, code: int, reason: str) -> None:  # noqa: ARG002 -- HTTP has no such thing
        """Write the rest of the answer, which is then complete; what has not been taken is dropped."""
        self._messages.drop()
        if self._part:
            await self._flush()

    async def _flush(self) -> None:
        part, self._part = self._part, bytearray()
        await self._write(bytes(part))


class BatchClientTransport:
    """Gathers what is said until an answer is waited for, posts it, and hands out the answer.

    Args:
        post: sends the body of a request and returns that of the answer. What it raises is what those are
            told who wait for an answer.
    """

    def __init__(self, post: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._post = post
        self._to_send: list[bytes] = []
        self._complete = Signal()
        self._answer: _Messages | None = None
        # How far it has come: nothing that is said is of use any longer; all that is answered has been read.
        self.is_sent = False
        self.is_answered = False

    async def receive(self) -> bytes | str:
        """Return the next message of the answer."""
        if self._answer is None:
            await self._complete.wait()
            await self._quiet()
            self.is_sent = True
            try:
                answer = await self._post(b"\n".join(self._to_send))
            except Exception as exc:
                raise BatchOverError(exc) from exc
            self._answer = _Messages(answer)
        message = await self._answer.take()
        if message is None:
            self.is_answered = True
            raise BatchOverError(
                SessionClosedError("the batch has been sent: there is no answer to this, and none will come")
            )
        return message

    async def send(self, frame: bytes, *, text: bool) -> None:  # noqa: ARG002 -- a line is text
        """Add a message to the request. After that has been sent, nobody would read it."""
        if not self.is_sent:
            self._to_send.append(frame)
            if frame.startswith(b'["pull",'):  # somebody waits
                self._complete.set()

    async def close(self, code: int, reason: str) -> None:
        """There is nothing to close: an answer that is still awaited goes with its reader."""

    async def complete(self) -> bool:
        """Post what has been said, if anything has; return whether something has."""
        await self._quiet()
        if self._to_send:
            self._complete.set()
        return bool(self._to_send)

    async def _quiet(self) -> None:
        """Return when nothing more is being said."""
        said = -1
        while said != len(self._to_send):
            said = len(self._to_send)
            for _ in range(QUIET_TURNS):
                await checkpoint()


class _Messages:
    """The messages in a body, to be taken one after another."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._taken = 0

    async def take(self) -> bytes | None:
        """Return the next message; None after the last."""
        while self._at < len(self._body):
            self._taken += 1
            if self._taken % MESSAGES_AT_A_TIME == 0:
                await checkpoint()
            end = self._body.find(b"\n", self._at)
            line = self._body[self._at : end if end >= 0 else len(self._body)]
            self._at += len(line) + 1
            if line and not line.isspace():
                return line
        self.drop()
        return None

    def drop(self) -> None:
        """Let go of what has not been taken."""
        self._body = b""
