"""HTTP/1.1 on the connections of one Unix socket. Who connects is hostile: time and memory are bounded.

h11 speaks the protocol. A request is read whole before it is looked at. While it is carried out, the
connection is watched, so that who goes away costs no more than that. What is said of an answer waits for
who reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import h11

__all__ = ["BodyPool", "ConnectionLimits", "HttpAnswer", "HttpConnection", "HttpRequest", "Pace"]

logger = logging.getLogger("rpcshare.gateway")

_PIECE = 64 * 1024
_LENGTH = re.compile(rb"[0-9]{1,15}")


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection may take. Times are in seconds."""

    idle: float = 300.0
    """For the next request to begin."""
    head: float = 20.0
    body: float = 120.0
    stalled: float = 300.0
    """For a piece of an answer to be taken."""
    head_bytes: int = 32 * 1024
    head_lines: int = 100
    body_bytes: int = 32 * 1024 * 1024
    linger: float = 3.0
    """For the end of a stream whose reader has gone away: that is where it says what it has cost."""
    connections: int = 64
    """Of one socket."""
    requests: float = 50.0
    """Of one socket in a second, after the first hundred; further ones wait."""
    under_way: int = 32
    """Requests of one socket that are carried out at a time."""
    held_bytes: int = 48 * 1024 * 1024
    """Bodies of one socket that are in memory at a time."""


class BodyPool:
    """Counts the bytes of bodies that are in memory."""

    def __init__(self, most: int, above: BodyPool | None = None) -> None:
        """Have room for ``most`` bytes, as far as the pool ``above`` has."""
        self._most = most
        self._above = above
        self.held = 0

    def take(self, size: int) -> bool:
        """Hold so many bytes more; False: there is no room."""
        if self.held + size > self._most or (self._above is not None and not self._above.take(size)):
            return False
        self.held += size
        return True

    def give_back(self, size: int) -> None:
        """Hold so many bytes less."""
        self.held -= size
        if self._above is not None:
            self._above.give_back(size)


class Pace:
    """Lets so many pass in a second, one after the other, and has the others wait."""

    def __init__(self, rate: float, burst: int = 100) -> None:
        """Let ``rate`` pass in a second, and ``burst`` at once after a rest."""
        self._interval = 1 / rate
        self._burst = burst
        self._next = 0.0

    async def wait(self) -> None:
        """Return when the next may pass."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now - self._burst * self._interval) + self._interval
        if self._next > now:
            await asyncio.sleep(self._next - now)


@dataclass
class HttpRequest:
    """A request, with all of its body."""

    method: str
    target: str
    headers: Mapping[str, str]
    """By name in lower case; of several with one name, the first."""
    body: bytes
    """Whoever reads it may make it empty."""


Handle: TypeAlias = "Callable[[HttpRequest, HttpAnswer], Awaitable[None]]"
Refusal: TypeAlias = "Callable[[str, int, str, str], tuple[Sequence[tuple[str, str]], bytes]]"
"""Given the target, a status, a sentence and a reason: the headers and the body that say so."""


class HttpAnswer:
    """The answer to one request, said piece by piece."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self.has_begun = False
        self.lingers: float | None = 0.0
        """For how long the request is carried out though nobody is there any more; None: to its end."""
        self.left = asyncio.Event()
        """Is set when nobody is."""

    async def begin(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Say the status and the headers. Raises OSError, TimeoutError."""
        self.has_begun = True
        if not self.left.is_set():
            await self._connection.send(h11.Response(status_code=status, headers=list(headers)))

    async def say(self, data: bytes) -> None:
        """Say a piece of the body; return once there is room for the next. Raises OSError, TimeoutError."""
        if not data or self.left.is_set():
            return
        try:
            await self._connection.send(h11.Data(data=data))
        except (OSError, TimeoutError):
            if self.lingers == 0:
                raise
            self.left.set()

    async def end(self) -> None:
        """End it. Raises OSError, TimeoutError."""
        if not self.left.is_set():
            await self._connection.send(h11.EndOfMessage())

    def cut(self) -> None:
        """End the connection, so that nobody takes what was said for the whole."""
        self._connection.abort()


class HttpConnection:
    """One connection, from its first request to its end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handle: Handle,
        refusal: Refusal,
        limits: ConnectionLimits,
        pool: BodyPool,
        pace: Pace,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handle = handle
        self._refusal = refusal
        self._limits = limits
        self._pool = pool
        self._pace = pace
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._held = 0
        self._is_head = False
        writer.transport.set_write_buffer_limits(high=_PIECE)

    async def serve(self) -> None:
        """Carry out requests until the connection ends."""
        try:
            while await self._serve_one():
                self._protocol.start_next_cycle()
        except (OSError, TimeoutError, h11.LocalProtocolError, asyncio.IncompleteReadError):
            self.abort()
        finally:
            self._release()
            self._writer.close()

    async def send(self, event: h11.Event) -> None:
        """Send an event, and wait until the peer has taken most of what was sent."""
        if isinstance(event, h11.Data) and self._is_head:
            return
        if data := self._protocol.send(event):
            if self._writer.is_closing():  # uvloop raises RuntimeError
                raise ConnectionResetError
            self._writer.write(data)
        async with asyncio.timeout(self._limits.stalled):
            await self._writer.drain()

    def abort(self) -> None:
        """End it at once."""
        self._writer.transport.abort()

    async def _serve_one(self) -> bool:
        """Carry out a request; return whether there may be another."""
        try:
            request = await self._read()
        except _RefusedError as exc:
            await self._refuse(exc)
            return False
        if request is None:
            return False
        await self._pace.wait()
        answer = HttpAnswer(self)
        handling = asyncio.ensure_future(self._handle(request, answer))
        del request  # whoever carries it out has it
        watching = asyncio.ensure_future(self._watch(answer))
        leaving = asyncio.ensure_future(answer.left.wait())
        try:
            await asyncio.wait({handling, leaving}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({handling}, timeout=answer.lingers)
        finally:
            tasks = (handling, watching, leaving)
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._release()
        if handling.cancelled() or answer.left.is_set():
            self.abort()
            return False
        handling.result()
        return self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE

    async def _watch(self, answer: HttpAnswer) -> None:
        """Tell when the peer goes away. If it sends more, that is kept, and it is not watched any longer."""
        data = b""
        with contextlib.suppress(OSError):
            data = await self._reader.read(_PIECE)
        if data:
            self._protocol.receive_data(data)
        else:
            answer.left.set()

    async def _read(self) -> HttpRequest | None:
        """Return the next request; None: there is no other."""
        try:
            head = await self._read_head()
            if head is None:
                return None
            async with asyncio.timeout(self._limits.body):
                body = await self._read_body(head)
        except h11.RemoteProtocolError as exc:
            # Its words are h11's own, with what it has not understood; nothing of them is secret.
            message = f"this is no request: {str(exc)[:200]}"
            raise _RefusedError(exc.error_status_hint, message, "malformed") from None
        except TimeoutError:
            raise _RefusedError(408, "the request took too long to arrive", "slow") from None
        headers: dict[str, str] = {}
        for name, value in head.headers:
            headers.setdefault(name.decode("ascii"), value.decode("latin-1"))
        return HttpRequest(head.method.decode("ascii"), head.target.decode("latin-1"), headers, body)

    async def _read_head(self) -> h11.Request | None:
        event = self._next_of_head()
        if event is h11.NEED_DATA and not self._protocol.trailing_data[0]:
            try:
                async with asyncio.timeout(self._limits.idle):
                    data = await self._reader.read(_PIECE)
            except TimeoutError:
                return None
            self._protocol.receive_data(data)
            event = self._next_of_head()
        async with asyncio.timeout(self._limits.head):
            while event is h11.NEED_DATA:
                self._protocol.receive_data(await self._reader.read(_PIECE))
                event = self._next_of_head()
        if isinstance(event, h11.ConnectionClosed):
            return None
        head = cast("h11.Request", event)
        self._is_head = head.method == b"HEAD"
        names = [name for name, _ in head.headers]
        if b"transfer-encoding" in names and b"content-length" in names:
            raise _RefusedError(400, "this request has two lengths", "malformed", _shown(head))
        if b"transfer-encoding" in names:
            # A byte in a chunk of its own would take a hundred times the work; and nobody sends chunks.
            raise _RefusedError(411, "say the length of the request", "malformed", _shown(head))
        return head

    def _next_of_head(self) -> object:
        """Return the next event, unless there are more lines than one cares to have parsed."""
        pending = self._protocol.trailing_data[0].partition(b"\r\n\r\n")[0]
        if pending.count(b"\n") > self._limits.head_lines:
            raise _RefusedError(431, "the request has too many headers", "size")
        return self._protocol.next_event()

    async def _read_body(self, head: h11.Request) -> bytes:
        announced = next((value for name, value in head.headers if name == b"content-length"), b"0")
        if _LENGTH.fullmatch(announced) is None or int(announced) > self._limits.body_bytes:
            raise self._too_large(head)
        if self._protocol.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))
        body = bytearray()
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                self._protocol.receive_data(await self._reader.read(_PIECE))
            elif isinstance(event, h11.Data):
                if len(body) + len(event.data) > self._limits.body_bytes:
                    raise self._too_large(head)
                if not self._pool.take(len(event.data)):
                    message = "too many large requests are under way"
                    raise _RefusedError(429, message, "memory", _shown(head))
                self._held += len(event.data)
                body += event.data
            else:
                return bytes(body)

    def _too_large(self, head: h11.Request) -> _RefusedError:
        message = f"the request is larger than {self._limits.body_bytes:,} bytes"
        return _RefusedError(413, message, "size", _shown(head))

    async def _refuse(self, refused: _RefusedError) -> None:
        """Answer a request that was not read, or not all of it, and take nothing more."""
        if self._protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._pace.wait()
        headers, body = self._refusal(refused.target, refused.status, refused.message, refused.reason)
        headers = [*headers, ("connection", "close")]
        await self.send(h11.Response(status_code=refused.status, headers=headers))
        await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())
        # What is still being sent is thrown away for a moment: cut at once, the answer might not be read.
        self._release()
        self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while await self._reader.read(_PIECE):
                    pass

    def _release(self) -> None:
        self._pool.give_back(self._held)
        self._held = 0


class _RefusedError(Exception):
    """A request that is not carried out."""

    def __init__(self, status: int, message: str, reason: str, target: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.target = target


def _shown(head: h11.Request) -> str:
    return head.target.decode("latin-1")
