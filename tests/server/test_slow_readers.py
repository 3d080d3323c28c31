"""Clients that take their time over an answer have all of it; those that take nothing of it are let go."""

import asyncio
import socket
import ssl
from asyncio import constants
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from rpcshare.server.http_protocol import HttpProtocol
from rpcshare.server.http_server import HttpServer
from rpcshare.server.websocket_protocol import WebSocketProtocol
from support.authorities import Authority

pytestmark = pytest.mark.slow  # real servers, several of them at a time

BODY = bytes(range(256)) * 2**15  # 8 MiB, which no buffer of a kernel has room for here
PIECES = 128

# The end of TLS, which a test cannot wait for otherwise: in that time a client takes what the kernel still
# has when the server is through. And how long it takes over an answer, which is longer.
TLS_END = 1.5
SLOWLY = 2 * TLS_END


class Hasty(HttpProtocol):
    """Closes a connection that is idle, and no other, before long."""

    idle = TLS_END / 4

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.timeout_keep_alive = self.idle  # type: ignore[assignment]  # uvicorn takes fractions as well


class Patient(Hasty):
    idle = 2.0


class Impatient(Hasty):
    slow_client_patience = 0.4


class Connection:
    """A client's, with small buffers."""

    def __init__(self, port: int, certificate: str | None) -> None:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        plain.connect(("127.0.0.1", port))
        self._socket = plain if certificate is None else _context(certificate).wrap_socket(plain)

    def upgrade(self) -> None:
        """Begin a WebSocket."""
        key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        self.ask(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", key)

    def ask(self, *headers: bytes) -> None:
        self._socket.sendall(b"\r\n".join([b"GET / HTTP/1.1", b"Host: x", *headers, b"", b""]))

    async def take(self, duration: float) -> bytes:
        """Take an answer with its body over at least ``duration``, or until the connection ends."""
        answer = bytearray()
        for _ in range(PIECES):
            answer += await asyncio.to_thread(self._receive, len(BODY) // PIECES)
            await asyncio.sleep(duration / PIECES)
        head, _, begun = bytes(answer).partition(b"\r\n\r\n")
        rest = len(BODY) - len(begun)
        return begun + await asyncio.to_thread(self._receive, rest) if head else b""

    async def take_a_byte(self) -> None:
        await asyncio.to_thread(self._receive, 1)

    def close(self) -> None:
        self._socket.close()

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size and (data := self._socket.recv(min(65536, size - len(received)))):
            received += data
        return bytes(received)


def _context(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    context.check_hostname = False
    return context


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.send_bytes(BODY)
        with suppress(WebSocketDisconnect):
            await websocket.receive_bytes()
    else:
        await Response(BODY)(scope, receive, send)


class Serving:
    """A server of :data:`BODY`."""

    def __init__(self, server: HttpServer, port: int, ca: str | None) -> None:
        self._server = server
        self._port = port
        self._ca = ca
        self._connections: list[Connection] = []

    async def connect(self) -> Connection:
        connection = await asyncio.to_thread(Connection, self._port, self._ca)
        self._connections.append(connection)
        return connection

    def close_connections(self) -> None:
        """Close them, however the test ended: what is left open is a failure of a later one."""
        for connection in self._connections:
            connection.close()

    async def until_nobody_is_connected(self) -> None:
        while self._server.server_state.connections:  # noqa: ASYNC110 -- uvicorn tells of none
            await asyncio.sleep(0.01)


@pytest.fixture(params=["plain", "tls"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Authority | None:
    return Authority(tmp_path) if request.param == "tls" else None


@asynccontextmanager
async def serving(authority: Authority | None, http: type[HttpProtocol]) -> AsyncIterator[Serving]:
    pem = None if authority is None else str(authority.issue_to_server())
    config = uvicorn.Config(
        answering,
        http=http,
        ws=WebSocketProtocol,
        ws_ping_interval=TLS_END,
        ws_ping_timeout=TLS_END,
        lifespan="off",
        log_config=None,
        ssl_certfile=pem,
        ssl_keyfile=pem,
        timeout_graceful_shutdown=1,
    )
    server = HttpServer(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        running = asyncio.create_task(server.serve([listener]))
        await server.has_started.wait()
        clients = Serving(
            server, listener.getsockname()[1], None if authority is None else str(authority.path)
        )
        try:
            yield clients
        finally:
            clients.close_connections()
            server.should_exit = True
            await running


@pytest.mark.parametrize(
    "headers",
    [pytest.param((b"Connection: close",), id="last"), pytest.param((), id="idle after it")],
)
async def test_whoever_takes_an_answer_slowly_has_all_of_it(
    authority: Authority | None, headers: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "SSL_SHUTDOWN_TIMEOUT", TLS_END)
    async with serving(authority, Hasty) as server:
        connection = await server.connect()
        connection.ask(*headers)
        assert await connection.take(SLOWLY) == BODY


async def test_the_time_of_an_idle_connection_begins_when_its_client_has_the_answer(
    authority: Authority | None,
) -> None:
    async with serving(authority, Patient) as server:
        connection = await server.connect()
        connection.ask()
        await connection.take(2 * Patient.idle)
        connection.ask()
        assert await connection.take(0) == BODY


@pytest.mark.parametrize(
    "headers",
    [pytest.param((b"Connection: close",), id="last"), pytest.param((), id="idle after it")],
)
async def test_whoever_takes_nothing_of_an_answer_is_let_go(
    authority: Authority | None, headers: tuple[bytes, ...]
) -> None:
    async with serving(authority, Impatient) as server:
        connection = await server.connect()
        connection.ask(*headers)
        await connection.take_a_byte()
        await server.until_nobody_is_connected()


async def test_whoever_takes_a_message_slowly_has_all_of_it_before_it_is_asked_whether_it_is_there(
    authority: Authority | None,
) -> None:
    async with serving(authority, Hasty) as server:
        connection = await server.connect()
        connection.upgrade()
        frame = await connection.take(SLOWLY)
        assert frame[:10] == b"\x82\x7f" + len(BODY).to_bytes(8, "big")
        assert len(frame) == len(BODY)  # of which ten bytes are the frame's own
        assert frame[10:] == BODY[:-10]
        # It never answers a ping.
        await server.until_nobody_is_connected()
