"""The target on a port of the loopback: WebSocket and, by POST, HTTP batches, both at ``/``.

The server of ``websockets`` reads no body of a request, and one that does would be another package to
install for whoever wants no more than to test a client. So the two are told apart here, by the request
line, and ``websockets``' Sans-I/O protocol does the rest of the one, a few lines the rest of the other.
"""

from __future__ import annotations

import asyncio
import http.client
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from rpcshare.conformance.target import ConformanceTarget
from rpcshare.rpc import JSON, Codec, Connection, Limits, TransportClosedError
from rpcshare.rpc.batch import answer_batch
from rpcshare.rpc.frames import close_reason
from rpcshare.rpc.messagepack import MESSAGEPACK
from rpcshare.rpc.session import redact_error

__all__ = ["serving"]

CODECS: dict[str, Codec] = {codec.subprotocol: codec for codec in (JSON, MESSAGEPACK)}

LIMITS = Limits()
# As much as a WebSocket message may be long, and a batch as a whole.
MAX_BYTES = LIMITS.message_bytes
CHUNK = 64 * 1024

# How long, in seconds, a peer may take to answer a close frame.
CLOSE_TIMEOUT = 2.0


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[str]:
    """Serve the target while the block runs; yields its URL, with ``http:``.

    Args:
        port: of 127.0.0.1; 0 for any that is free.

    Raises:
        OSError: the port cannot be had.
    """
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]  # start_server makes one
        served.add(task)
        try:
            await _serve(reader, writer)
        except (ConnectionError, TransportClosedError, asyncio.CancelledError):
            pass  # the peer has gone, or the server goes
        finally:
            writer.close()
            served.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=CHUNK)
    async with server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        finally:
            server.close()
            for task in served:
                task.cancel()
            await asyncio.gather(*served)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the one request of a connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return
    request_line, _, fields = head.partition(b"\r\n")
    method, _, target = request_line.partition(b" ")
    if target.partition(b" ")[0].partition(b"?")[0] != b"/":
        _respond(writer, HTTPStatus.NOT_FOUND, b"the target is at /\n")
    elif method == b"POST":
        await _answer_batch(http.client.parse_headers(io.BytesIO(fields)), reader, writer)
    else:
        await _run_session(head, reader, writer)


def _respond(writer: asyncio.StreamWriter, status: HTTPStatus, body: bytes) -> None:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode("ascii") + body)


async def _answer_batch(
    headers: http.client.HTTPMessage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    length = headers.get("Content-Length", "")
    if not (length.isascii() and length.isdecimal()):
        _respond(writer, HTTPStatus.LENGTH_REQUIRED, b"the body needs a Content-Length\n")
        return
    if int(length) > MAX_BYTES:
        _respond(writer, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"a batch is at most %d bytes\n" % MAX_BYTES)
        return
    if headers.get("Expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        body = await reader.readexactly(int(length))
    except asyncio.IncompleteReadError:
        return
    answer = await answer_batch(body, ConformanceTarget(), limits=LIMITS, describe_error=redact_error)
    _respond(writer, HTTPStatus.OK, answer)
    await writer.drain()


async def _run_session(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    protocol = ServerProtocol(
        subprotocols=[Subprotocol(name) for name in CODECS],
        select_subprotocol=_select,
        max_size=2 * MAX_BYTES,  # so that it is the session that says what is too long
    )
    protocol.receive_data(head)
    for request in protocol.events_received():
        protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]  # the first event is one
    transport = _SocketTransport(protocol, reader, writer)
    await transport.flush()
    if protocol.state is State.OPEN:
        codec = CODECS.get(protocol.subprotocol or JSON.subprotocol, JSON)
        await Connection(transport, ConformanceTarget(), codec=codec, limits=LIMITS, throttle=True).run()


def _select(_protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    preferred = Subprotocol(MESSAGEPACK.subprotocol)  # as rpcshare's own server (PROTOCOL.md, T-7)
    return preferred if preferred in offered else next((name for name in offered if name in CODECS), None)


class _SocketTransport:
    """A WebSocket over the streams of a socket, accepted already."""

    def __init__(
        self, protocol: ServerProtocol, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._protocol = protocol
        self._reader = reader
        self._writer = writer
        # Whole messages that have been read, and the fragments of the next.
        self._messages: list[bytes] = []
        self._fragments: list[bytes] = []

    async def receive(self) -> bytes | str:
        """Return the next message, as bytes whichever kind it is."""
        while not self._messages:
            if self._protocol.state is not State.OPEN:
                raise TransportClosedError(f"the peer has closed the WebSocket: {self._protocol.close_code}")
            await self._read()
        return self._messages.pop(0)

    async def send(self, frame: bytes, *, text: bool) -> None:
        """Send one message."""
        if self._protocol.state is not State.OPEN:
            raise TransportClosedError("the WebSocket is closed")
        if text:
            self._protocol.send_text(frame)
        else:
            self._protocol.send_binary(frame)
        await self.flush()

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame, unless the peer has, and give the peer some time to answer."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, close_reason(reason))
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.flush()
                while not self._reader.at_eof():
                    await self._read()
        except (TimeoutError, TransportClosedError):
            pass  # it is closed without

    async def _read(self) -> None:
        """Take in what has arrived, or wait for something to arrive."""
        try:
            data = await self._reader.read(CHUNK)
        except ConnectionError as exc:
            raise TransportClosedError(str(exc)) from exc
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._fragments.append(bytes(event.data))
                if event.fin:
                    self._messages.append(b"".join(self._fragments))
                    self._fragments.clear()
        await self.flush()

    async def flush(self) -> None:
        """Send what the protocol has to say, its answers to pings and close frames among it."""
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
            elif self._writer.can_write_eof():
                self._writer.write_eof()
        try:
            await self._writer.drain()
        except ConnectionError as exc:
            raise TransportClosedError(str(exc)) from exc
