"""Where a request ends: a proxy in front and the server must not be of two minds about it.

Otherwise a caller hides a second request in the body of the first (request smuggling), which the proxy has
never looked at, and the server takes for one that the proxy has let through.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.server import ServerState

from rpcshare.server.http_protocol import MAX_HEAD, MAX_PIPELINED, HttpProtocol
from rpcshare.server.websocket_protocol import WebSocketProtocol
from support.authorities import Authority

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
HANDSHAKE = (
    b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Served(NamedTuple):
    """A request, as the application has seen it."""

    method: str
    path: str
    body: bytes


class Hasty(WebSocketProtocol):
    """Does not wait for long for a client to answer its close."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = 0.05


class Site:
    """An application that keeps what it is asked, and the server that runs it."""

    def __init__(self) -> None:
        self.served: list[Served] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.released = asyncio.Event()
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.port = 0
        self.context: ssl.SSLContext | None = None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self.talk(WebSocket(scope, receive, send))
            return
        request = Request(scope, receive)
        self.headers.append(list(scope["headers"]))
        if request.url.path == "/slow":
            await self.released.wait()
        if request.url.path == "/until-gone":
            self.asked.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone.set()
        body = b"" if request.url.path == "/unread" else await request.body()
        self.served.append(Served(request.method, request.url.path, body))
        answer: Response = PlainTextResponse(f"answer to {request.url.path}")
        await answer(scope, receive, send)

    async def talk(self, websocket: WebSocket) -> None:
        self.headers.append(list(websocket.scope["headers"]))
        await websocket.accept()
        self.served.append(Served("WEBSOCKET", websocket.url.path, b""))
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = None if self.context is None else "localhost"
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, server_hostname=host, limit=2**20
        )

    async def answers(self, *sent: bytes) -> bytes:
        """Return all that is answered to ``sent``, of which each part arrives by itself."""
        reader, writer = await self.connect()
        for part in sent:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        answers = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return answers


@asynccontextmanager
async def running(directory: Path | None = None) -> AsyncIterator[Site]:
    site = Site()
    pem = None
    if directory is not None:
        authority = Authority(directory)
        pem = authority.issue_to_server()
        site.context = ssl.create_default_context(cafile=authority.path)
    config = uvicorn.Config(
        site.app,
        interface="asgi3",
        http=HttpProtocol,
        ws=Hasty,
        log_config=None,
        ssl_certfile=pem,
        timeout_keep_alive=1,
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0, ssl=config.ssl
    )
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        site.released.set()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)


@pytest.fixture(params=["plain", "tls"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path if request.param == "tls" else None) as site:
        yield site


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


UPGRADES = {
    "h2c, as curl sends it": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
    "h2c, as nginx passes it on": b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    "an unknown protocol": b"Connection: keep-alive, UPGRADE\r\nUpgrade: IRC/6.9\r\n",
    "two headers": b"Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
    "a list": b"Connection: upgrade\r\nUpgrade: h2c, websocket\r\n",
    "two Connection headers": b"Connection: upgrade\r\nConnection: keep-alive\r\nUpgrade: h2c\r\n",
    "Proxy-Connection": b"Proxy-Connection: upgrade\r\nUpgrade: h2c\r\n",
    "a WebSocket, by POST": HANDSHAKE.partition(b"Host: x\r\n")[2],
}


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES.keys())
@pytest.mark.parametrize("parts", [1, 2])
async def test_behind_an_upgrade_that_is_not_wanted_comes_the_body(
    site: Site, upgrade: bytes, parts: int
) -> None:
    head = b"POST /first HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (upgrade, len(HIDDEN))
    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = await site.answers(*([head + HIDDEN + last] if parts == 1 else [head, HIDDEN, last]))
    assert site.served == [Served("POST", "/first", HIDDEN), Served("GET", "/last", b"")]
    assert statuses(answers) == [200, 200]


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES.keys())
async def test_behind_an_upgrade_that_is_not_wanted_come_the_chunks(site: Site, upgrade: bytes) -> None:
    head = b"POST /first HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n" % upgrade
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    await site.answers(head + chunks + last)
    assert site.served == [Served("POST", "/first", HIDDEN), Served("GET", "/last", b"")]


async def test_a_body_that_nobody_reads_is_not_taken_for_requests(site: Site) -> None:
    head = b"POST /unread HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
    body = b"\r\n" * 50_000 + HIDDEN
    answers = await site.answers(head + b"Content-Length: %d\r\n\r\n" % len(body), body)
    assert [each.path for each in site.served] == ["/unread"]
    assert statuses(answers) == [200]


async def test_many_upgrades_in_one_read_are_many_requests(site: Site) -> None:
    one = b"GET /one HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = await site.answers(one * 200 + last)
    assert statuses(answers) == [200] * 201


async def test_a_client_that_waits_for_leave_to_send_a_body_gets_it_in_spite_of_an_upgrade(
    site: Site,
) -> None:
    reader, writer = await site.connect()
    writer.write(
        b"POST /first HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
        b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    assert site.served == [Served("POST", "/first", b"{}")]


async def test_a_client_of_http_1_0_is_told_nothing_before_the_answer(site: Site) -> None:
    head = b"POST /first HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert statuses(await site.answers(head, b"{}")) == [200]


FIRST = b"POST /first HTTP/1.1\r\nHost: x\r\n"
CHUNKED = FIRST + b"Transfer-Encoding: chunked\r\n\r\n"
AMBIGUOUS = {
    "both lengths": (400, FIRST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "both, the other way round": (
        400,
        FIRST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    "two lengths": (400, FIRST + b"Content-Length: 0\r\nContent-Length: 34\r\n\r\n"),
    "a list of lengths": (400, FIRST + b"Content-Length: 0, 34\r\n\r\n"),
    "a signed length": (400, FIRST + b"Content-Length: +0\r\n\r\n"),
    "a length with a space": (400, FIRST + b"Content-Length: 0 34\r\n\r\n"),
    "a space before the colon": (400, FIRST + b"Content-Length : 34\r\n\r\n"),
    "a folded line": (400, FIRST + b"X: y\r\n Content-Length: 34\r\n\r\n"),
    "a folded coding": (400, FIRST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    "a bare line feed": (400, FIRST + b"X: y\nContent-Length: 34\r\n\r\n"),
    "a bare carriage return": (400, FIRST + b"X: y\rContent-Length: 34\r\n\r\n"),
    "a null": (400, FIRST + b"X: y\0Content-Length: 34\r\n\r\n"),
    "chunks in HTTP/1.0": (400, CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n"),
    "chunks in an HTTP/1.0 kept alive": (
        400,
        b"POST /first HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "two codings": (501, FIRST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "an empty coding": (501, FIRST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    "an unknown coding": (501, FIRST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "no coding at all": (400, FIRST + b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n"),
    "a coding of two headers": (400, FIRST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n"),
    "a chunk's extension with a line feed": (400, CHUNKED + b"1;a\nx\r\n0\r\n\r\n"),
    "a chunk's size with a line feed": (400, CHUNKED + b"1\nx\r\n0\r\n\r\n"),
    "a chunk with a line feed": (400, CHUNKED + b"1\r\nx\n0\r\n\r\n"),
    "a chunk without an end": (400, CHUNKED + b"1\r\nx0\r\n\r\n"),
    "a chunk with another end": (400, CHUNKED + b"1\r\nxXX0\r\n\r\n"),
    "a chunk's size with a prefix": (400, CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n"),
    "a chunk's size with a space": (400, CHUNKED + b"1 \r\nx\r\n0\r\n\r\n"),
    "a chunk's size out of range": (400, CHUNKED + b"1" + b"0" * 16 + b"\r\nx\r\n0\r\n\r\n"),
    "a length in the trailers": (400, CHUNKED + b"0\r\nContent-Length: 34\r\n\r\n"),
    "two hosts": (400, FIRST + b"Host: y\r\nContent-Length: 0\r\n\r\n"),
    "no host": (400, b"POST /first HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
    "a WebSocket without a host": (400, HANDSHAKE.replace(b"Host: x\r\n", b"") + b"\r\n"),
    "a host with a space": (400, FIRST.replace(b"x", b"x y") + b"Content-Length: 0\r\n\r\n"),
    "a host with a user": (400, FIRST.replace(b"x", b"x@y") + b"Content-Length: 0\r\n\r\n"),
    "a host with a path": (400, FIRST.replace(b"x", b"x/y") + b"Content-Length: 0\r\n\r\n"),
    "a host with markup": (400, FIRST.replace(b"x", b'"><script>') + b"Content-Length: 0\r\n\r\n"),
    "a host in Latin-1": (400, FIRST.replace(b"x", b"\xff") + b"Content-Length: 0\r\n\r\n"),
    "half an address as host": (400, FIRST.replace(b"x", b"[::1") + b"Content-Length: 0\r\n\r\n"),
    "a host with a port that is none": (400, FIRST.replace(b"x", b"x:y") + b"Content-Length: 0\r\n\r\n"),
    "HTTP/0.9": (505, b"GET /first\r\n\r\n"),
    "HTTP/2": (505, b"GET /first HTTP/2.0\r\nHost: x\r\n\r\n"),
    "HTTP/2 by its preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "CONNECT": (501, b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
    "a WebSocket with a body": (400, HANDSHAKE + b"Content-Length: 34\r\n\r\n"),
    "a WebSocket with chunks": (400, HANDSHAKE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize(("status", "sent"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_whose_end_is_not_clear_is_refused_and_nothing_behind_it_is_served(
    status: int, sent: bytes
) -> None:
    async with running() as site:
        answers = await site.answers(sent + HIDDEN)
        assert site.served == []
    assert statuses(answers) == [status]
    assert b"\r\nconnection: close\r\n" in answers


@pytest.mark.parametrize(
    "host", [b"", b"a_b.example.:80", b"[::1]:8787", b"127.0.0.1:", b"xn--bcher-kva.example"]
)
async def test_a_host_is_a_name_or_an_address(site: Site, host: bytes) -> None:
    answers = await site.answers(b"GET /first HTTP/1.1\r\nConnection: close\r\nHost: %b\r\n\r\n" % host)
    assert statuses(answers) == [200]


async def test_http_1_0_needs_no_host(site: Site) -> None:
    assert statuses(await site.answers(b"GET /first HTTP/1.0\r\n\r\n")) == [200]


async def test_a_refusal_is_never_taken_for_the_answer_to_an_earlier_request(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(
        b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET /bad HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"
    )
    assert await reader.read() == b""
    writer.close()


async def test_requests_behind_one_that_is_not_answered_are_taken_up_to_a_limit(site: Site) -> None:
    slow, quick = (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"slow", b"quick"))
    reader, writer = await site.connect()
    writer.write(slow + quick * (MAX_PIPELINED + 1))
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    assert site.served == []

    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    site.released.set()
    answers = await site.answers(slow + quick * (MAX_PIPELINED - 1) + last)
    assert statuses(answers) == [200] * (MAX_PIPELINED + 1)


async def test_a_request_with_others_behind_it_hears_that_its_client_is_gone(site: Site) -> None:
    _, writer = await site.connect()
    writer.write(
        b"".join(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"until-gone", b"behind"))
    )
    await writer.drain()
    async with asyncio.timeout(20):
        await site.asked.wait()
        writer.transport.abort()
        await site.gone.wait()


async def test_what_comes_behind_a_body_is_no_header(site: Site) -> None:
    trailers = b"1\r\nx\r\n0\r\nX-Auth-User: alice\r\nAuthorization: Bearer x\r\nExpect: 100-continue\r\n\r\n"
    await site.answers(CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + trailers)
    assert site.served == [Served("POST", "/first", b"x")]
    assert {name for name, _ in site.headers[0]} == {b"host", b"connection", b"transfer-encoding"}


async def test_white_space_around_a_header_s_value_is_not_part_of_it(site: Site) -> None:
    await site.answers(b"GET /first HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-User: \t alice \t \r\n\r\n")
    assert dict(site.headers[0])[b"x-user"] == b"alice"


# --- handshakes of WebSockets --------------------------------------------------------------------


def frame(text: bytes) -> bytes:
    """Return a text message as a client sends it, masked with zeros."""
    return b"\x81" + bytes([0x80 + len(text)]) + bytes(4) + text


LONG = {
    "a cookie of 8,300 bytes": b"Cookie: a=" + b"x" * 8300 + b"\r\n",
    "a cookie of 100,000 bytes": b"Cookie: a=" + b"x" * 100_000 + b"\r\n",
    "130 headers": b"".join(b"X-%d: y\r\n" % number for number in range(130)),
    "a header in Latin-1": b"X-Name: Andr\xe9\r\n",
    "no body, said so": b"Content-Length: 0\r\n",
}


@pytest.mark.parametrize("headers", LONG.values(), ids=LONG.keys())
async def test_a_websocket_has_as_large_a_head_as_any_request(site: Site, headers: bytes) -> None:
    answer = await site.answers(HANDSHAKE + headers + b"\r\n", frame(b"hello"))
    assert statuses(answer) == [101]
    assert b"\x81\x05hello" in answer
    name, _, value = headers.splitlines()[0].partition(b": ")
    assert dict(site.headers[0])[name.lower()] == value


async def test_a_websocket_with_a_larger_head_is_refused(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(HANDSHAKE + b"Cookie: a=" + b"x" * MAX_HEAD + b"\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
    writer.close()


async def test_frames_that_come_with_the_handshake_are_read(site: Site) -> None:
    answer = await site.answers(HANDSHAKE + b"\r\n" + frame(b"hello"))
    assert answer.endswith(b"\x81\x05hello\x88\x02\x03\xe8")


async def test_a_ping_is_not_answered_before_the_handshake_is() -> None:
    async with running() as site:
        answer = await site.answers(HANDSHAKE + b"\r\n" + b"\x89\x80" + bytes(4) + frame(b"hello"))
    assert answer.startswith(b"HTTP/1.1 101 ")


async def test_a_handshake_waits_for_the_answers_to_what_was_asked_before(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + HANDSHAKE + b"\r\n" + frame(b"hello"))
    await writer.drain()
    site.released.set()
    answer = await reader.read()
    writer.close()
    assert statuses(answer) == [200, 101]
    assert answer.endswith(b"\x81\x05hello\x88\x02\x03\xe8")


@pytest.mark.parametrize(
    ("status", "old", "new"),
    [
        (400, b"Version: 13", b"Version: 7"),
        (400, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Key: short"),
        (400, b"Sec-WebSocket-Key", b"X-WebSocket-Key"),
    ],
)
async def test_behind_a_refused_handshake_nothing_is_served(
    site: Site, status: int, old: bytes, new: bytes
) -> None:
    # A proxy that did not look at the answer would pass on whatever follows.
    answer = await site.answers(HANDSHAKE.replace(old, new) + b"\r\n", HIDDEN)
    assert statuses(answer) == [status]
    assert site.served == []
