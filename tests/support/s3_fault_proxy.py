"""An HTTP proxy in front of a server, which misbehaves as told. For tests of who talks to the server.

One request at a time is taken from a connection, and forwarded over a connection of its own::

    async with FaultProxy(upstream_url) as proxy:
        proxy.inject(Fault.LOSE_ANSWER, times=1, method="PUT")
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

__all__ = ["Fault", "FaultProxy", "SeenRequest", "answer", "without"]


class Fault(Enum):
    """What happens to a request."""

    ERROR_500 = auto()
    """It is answered with 500, not forwarded."""
    SLOW_DOWN = auto()
    """It is answered with 503 as S3 does, not forwarded."""
    BAD_GATEWAY = auto()
    """It is answered with 502 and HTML, as load balancers do, not forwarded."""
    NONSENSE = auto()
    """It is answered with 200 and something that S3 would not say."""
    CONFLICT = auto()
    """It is answered with 409, as when two conditional writes meet, not forwarded."""
    DELAY = auto()
    """It is forwarded after :attr:`FaultProxy.delay`."""
    TRICKLE = auto()
    """It is forwarded, and answered by a byte every 10 ms."""
    TRUNCATE = auto()
    """It is forwarded; half of what the answer is goes missing, and the connection is closed."""
    LOSE_ANSWER = auto()
    """It is forwarded; the connection is closed in place of an answer."""
    HANG = auto()
    """It is read and never answered, not even when the fault is over."""
    RESET = auto()
    """Its connection is reset, not forwarded."""


class SeenRequest(msgspec.Struct, frozen=True):
    """A request that arrived."""

    method: str
    target: str
    """Path and query."""


class _Rule(msgspec.Struct):
    fault: Fault | bytes
    times: int | None
    method: str | None


class FaultProxy:
    """Between ``async with`` and its end it listens on the loopback.

    Attributes:
        url: where.
        seen: the requests that arrived.
        delay: the seconds of :attr:`Fault.DELAY`.
        edit_request: changes the head of each request that is forwarded.
        edit_answer: changes each answer that is forwarded, with its body, whose length must stay.
        under_way: how many requests have arrived and not been answered.
        most_under_way: how many there were at most.
    """

    def __init__(self, upstream_url: str) -> None:
        upstream = urlsplit(upstream_url)
        assert upstream.scheme == "http"
        self._upstream = (upstream.hostname, upstream.port or 80)
        self.url = ""
        self.seen: list[SeenRequest] = []
        self.delay = 0.3
        self.edit_request: Callable[[bytes], bytes] = lambda head: head
        self.edit_answer: Callable[[bytes], bytes] = lambda answer: answer
        self.under_way = 0
        self.most_under_way = 0
        self._rules: list[_Rule] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def inject(self, fault: Fault | bytes, *, times: int | None = None, method: str | None = None) -> None:
        """Misbehave: for the next ``times`` requests, or until :meth:`heal`; with one method, or any.

        Bytes are an answer to be given without forwarding the request: see :func:`answer`.
        """
        self._rules.append(_Rule(fault, times, method))

    def heal(self) -> None:
        """Misbehave no more."""
        self._rules.clear()

    def methods(self) -> list[str]:
        """Return the methods of the requests that arrived, and forget them."""
        methods = [request.method for request in self.seen]
        self.seen.clear()
        return methods

    def _fault_for(self, method: str) -> Fault | bytes | None:
        for rule in self._rules:
            if rule.method in (None, method):
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times == 0:
                        self._rules.remove(rule)
                return rule.fault
        return None

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        except asyncio.CancelledError:
            pass  # by __aexit__; asyncio would report a cancelled callback as an error
        finally:
            writer.close()
            self._connections.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return whether the connection may be used for another."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        method, target, _ = lines[0].decode().split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        if headers.get(b"expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get(b"content-length", 0)))
        self.seen.append(SeenRequest(method, target))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            keeps_open = await self._serve(self._fault_for(method), head, body, writer)
            await writer.drain()
        finally:
            self.under_way -= 1
        return keeps_open

    async def _serve(
        self, fault: Fault | bytes | None, head: bytes, body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        match fault:
            case bytes():
                writer.write(fault)
            case Fault.DELAY:
                await asyncio.sleep(self.delay)
                writer.write(await self._forward(head, body))
            case Fault.TRICKLE:
                for byte in await self._forward(head, body):
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.01)
            case Fault.TRUNCATE:
                whole = await self._forward(head, body)
                writer.write(whole[: len(whole) // 2])
                return False
            case Fault.LOSE_ANSWER:
                await self._forward(head, body)
                return False
            case Fault.HANG:
                await asyncio.get_running_loop().create_future()
            case Fault.RESET:
                # Lingering for no time makes closing a reset.
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            case None:
                writer.write(await self._forward(head, body))
            case _:
                writer.write(_ANSWERS[fault])
        return True

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        """Return the whole answer of the server."""
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            head = self.edit_request(without(head, b"expect", b"connection"))
            first, _, rest = head.partition(b"\r\n")
            writer.write(first + b"\r\nConnection: close\r\n" + rest + body)
            received = await reader.read()
        finally:
            writer.close()
        received_head, _, received_body = received.partition(b"\r\n\r\n")
        return self.edit_answer(without(received_head + b"\r\n\r\n", b"connection") + received_body)


def without(head: bytes, *names: bytes) -> bytes:
    """Return a head without the headers of these names."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0].lower() not in names)


def _s3_error(status: int, code: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    return answer(status, b"application/xml", body.encode())


def answer(status: int, content_type: bytes, body: bytes) -> bytes:
    """Return an HTTP answer."""
    return b"HTTP/1.1 %d Injected\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        content_type,
        len(body),
        body,
    )


_ANSWERS = {
    Fault.ERROR_500: _s3_error(500, "InternalError"),
    Fault.SLOW_DOWN: _s3_error(503, "SlowDown"),
    Fault.CONFLICT: _s3_error(409, "ConditionalRequestConflict"),
    Fault.BAD_GATEWAY: answer(502, b"text/html", b"<html><h1>Bad Gateway</h1><br></html>"),
    Fault.NONSENSE: answer(200, b"application/xml", b"<ListBucketResult><Contents>"),
}
