"""What a server may do with a connection, and what its client is told of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from rpcshare.storage import http_connections
from rpcshare.storage.http_connections import (
    CannotConnectError,
    CutShortError,
    HTTPConnections,
    NotHTTPError,
    SlowConnectError,
    TooLargeError,
)
from support.authorities import Authority
from support.proxies import free_port
from support.waiting import eventually

REQUEST = b"PUT /key HTTP/1.1\r\nHost: s3\r\nContent-Length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSE = b""  # in the place of an answer: the connection is closed


class Server:
    """Answers the requests of each connection, of which it counts both.

    Attributes:
        answers: what is sent for each request, in turn; the last one from then on.
        connections: how many were made.
        requests: how many arrived.
        open: how many connections are open.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[bytes, ...]] = [(OK,)]
        self.connections = self.requests = self.open = 0
        self.port = 0
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(4)
                self.requests += 1
                pieces = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                self.asked.set()
                await self.may_answer.wait()
                for piece in pieces:
                    if piece == CLOSE:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[HTTPConnections]:
    http = HTTPConnections("127.0.0.1", server.port)
    yield http
    http.close()
    await eventually(lambda: server.open == 0)


async def test_a_connection_is_used_for_one_request_after_the_other(
    server: Server, http: HTTPConnections
) -> None:
    for _ in range(3):
        assert (await http.exchange(REQUEST)).body == b"ok"
    assert (server.connections, server.requests) == (1, 3)


async def test_requests_at_once_have_a_connection_each(server: Server, http: HTTPConnections) -> None:
    for _ in range(2):
        await asyncio.gather(*(http.exchange(REQUEST) for _ in range(5)))
    assert (server.connections, server.requests) == (5, 10)


CHUNKED = (
    b"HTTP/1.1 503 Slow\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-End: 1\r\n\r\n"
)


@pytest.mark.parametrize(
    ("answer", "status", "body", "is_kept"),
    [
        ((OK,), 200, b"ok", True),
        (tuple(OK[n : n + 1] for n in range(len(OK))), 200, b"ok", True),
        ((CHUNKED,), 503, b"abcde", True),
        (tuple(CHUNKED[n : n + 1] for n in range(len(CHUNKED))), 503, b"abcde", True),
        ((b"HTTP/1.1 204 No\r\n\r\n",), 204, b"", True),
        ((b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n",), 304, b"", True),
        ((b"HTTP/1.1 100 Go\r\n\r\n" + OK,), 200, b"ok", True),
        ((b"HTTP/1.1 103 Hints\r\nLink: <x>\r\n\r\n", b"HTTP/1.1 102 Wait\r\n\r\n", OK), 200, b"ok", True),
        ((b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",), 200, b"", True),
        ((b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",), 200, b"a", False),
        ((b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",), 200, b"a", False),
        ((b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",), 200, b"a", True),
        ((b"HTTP/1.1 500 No\r\n\r\nuntil ", b"the end", CLOSE), 500, b"until the end", False),
    ],
)
async def test_a_response_is_read_in_whatever_form_and_pieces(
    server: Server,
    http: HTTPConnections,
    answer: tuple[bytes, ...],
    status: int,
    body: bytes,
    is_kept: bool,
) -> None:
    server.answers = [answer]
    for _ in range(2):
        response = await http.exchange(REQUEST)
        assert (response.status, response.body) == (status, body)
    assert (server.connections, server.requests) == (1 if is_kept else 2, 2)


async def test_names_of_headers_are_in_lower_case_and_those_of_interim_responses_are_left_out(
    server: Server, http: HTTPConnections
) -> None:
    final = b"HTTP/1.1 200 OK\r\nETag: a \r\nX-E:\r\nContent-Length: 1\r\n\r\nb"
    server.answers = [(b"HTTP/1.1 100 Go\r\nETag: no\r\nX-No: x\r\n\r\n" + final,)]
    response = await http.exchange(REQUEST)
    assert response.headers == {"etag": "a", "x-e": "", "content-length": "1"}


async def test_what_has_arrived_of_a_body_is_told_and_not_what_is_announced(
    server: Server, http: HTTPConnections
) -> None:
    server.answers = [(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b"abc")]
    told: list[int] = []
    request = asyncio.create_task(http.exchange(REQUEST, told.append))
    await eventually(lambda: bool(told))
    assert not request.done()
    assert sum(told) == 3
    request.cancel()
    await asyncio.wait([request])


@pytest.mark.parametrize(
    "head", [b"Content-Length: 101", b"Transfer-Encoding: chunked", b"Connection: close"]
)
async def test_a_body_that_is_too_large_is_read_no_further(
    server: Server, http: HTTPConnections, head: bytes
) -> None:
    body = b"x" * 101
    if b"chunked" in head:
        body = b"65\r\n" + body + b"\r\n0\r\n\r\n"
    server.answers = [(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body,), (OK,)]
    with pytest.raises(TooLargeError, match="more than 100 bytes"):
        await http.exchange(REQUEST, largest=100)
    assert (await http.exchange(REQUEST, largest=2)).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((CLOSE,), ConnectionError),
        ((OK[:10], CLOSE), CutShortError),
        ((OK[:-1], CLOSE), CutShortError),
        ((CHUNKED[:-4], CLOSE), CutShortError),
        ((b"HTTP/1.1 100 Go\r\n\r\n", CLOSE), CutShortError),
        ((b"SSH-2.0-OpenSSH\r\n",), NotHTTPError),
        (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",),
            NotHTTPError,
        ),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",), NotHTTPError),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nab",), NotHTTPError),
        ((b"HTTP/1.1 101 Other\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",), NotHTTPError),
        ((b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,), NotHTTPError),
    ],
)
async def test_what_is_no_response_is_an_error_and_the_request_is_not_repeated(
    server: Server, http: HTTPConnections, answer: tuple[bytes, ...], error: type[Exception]
) -> None:
    server.answers = [(OK,), answer, (OK,)]
    await http.exchange(REQUEST)
    with pytest.raises(error) as raised:
        await http.exchange(REQUEST)
    assert raised.type is error
    assert server.requests == 2
    assert (await http.exchange(REQUEST)).body == b"ok"
    assert server.connections == 2


async def test_a_second_response_is_not_taken_for_that_to_the_next_request(
    server: Server, http: HTTPConnections
) -> None:
    server.answers = [(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",), (OK,)]
    assert [(await http.exchange(REQUEST)).body for _ in range(2)] == [b"ok", b"ok"]
    assert server.connections == 2


async def test_a_connection_on_which_something_comes_unasked_is_not_used_again(
    server: Server, http: HTTPConnections
) -> None:
    server.answers = [(OK, b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"), (OK,)]
    await http.exchange(REQUEST)
    await eventually(lambda: server.open == 0)
    assert (await http.exchange(REQUEST)).body == b"ok"


async def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used_again(
    server: Server, http: HTTPConnections
) -> None:
    server.answers = [(OK, CLOSE)]
    for _ in range(3):
        assert (await http.exchange(REQUEST)).body == b"ok"
        await eventually(lambda: server.open == 0)
        await asyncio.sleep(0.01)  # the client hears of it
    assert (server.connections, server.requests) == (3, 3)


async def test_a_connection_that_has_been_idle_for_long_is_not_used_again(
    server: Server, http: HTTPConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connections, "_IDLE_FOR", -1.0)
    for _ in range(2):
        await http.exchange(REQUEST)
    assert server.connections == 2


async def test_what_comes_for_a_request_that_was_given_up_is_not_taken_for_that_to_another(
    server: Server, http: HTTPConnections
) -> None:
    server.answers = [(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",), (OK,)]
    server.may_answer.clear()
    given_up = asyncio.create_task(http.exchange(REQUEST))
    await server.asked.wait()
    given_up.cancel()
    await asyncio.wait([given_up])
    server.may_answer.set()
    assert (await http.exchange(REQUEST)).body == b"ok"


async def test_a_server_that_answers_before_it_has_read_all_gets_no_other_request_on_that_connection() -> (
    None
):
    connections = closed = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, closed
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Slow\r\nContent-Length: 0\r\n\r\n")
        await done.wait()
        writer.close()
        closed += 1

    done = asyncio.Event()
    async with await asyncio.start_server(refuse, "127.0.0.1", 0, limit=2**10) as listener:
        http = HTTPConnections("127.0.0.1", listener.sockets[0].getsockname()[1])
        size = 32 * 2**20  # more than the system buffers
        request = b"PUT / HTTP/1.1\r\nHost: s3\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
        for _ in range(2):
            assert (await http.exchange(request)).status == 503
        assert connections == 2
        done.set()
        await eventually(lambda: closed == 2)


async def test_closing_lets_a_request_under_way_end(server: Server, http: HTTPConnections) -> None:
    server.may_answer.clear()
    request = asyncio.create_task(http.exchange(REQUEST))
    await server.asked.wait()
    http.close()
    server.may_answer.set()
    assert (await request).body == b"ok"
    await eventually(lambda: server.open == 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid", "::1"])
async def test_a_server_that_is_not_there_is_an_error(host: str) -> None:
    with pytest.raises(CannotConnectError):
        await HTTPConnections(host, free_port()).exchange(REQUEST)


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.path)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def serving(authority: Authority, name: x509.GeneralName) -> ssl.SSLContext:
    certificate = authority.issue("", name, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.pem(certificate))
    return context


async def test_it_speaks_tls(server: Server, authority: Authority) -> None:
    tls = serving(authority, x509.IPAddress(ip_address("127.0.0.1")))
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listener:
        port = listener.sockets[0].getsockname()[1]
        http = HTTPConnections("127.0.0.1", port, trusting(authority))
        for _ in range(2):
            assert (await http.exchange(REQUEST)).body == b"ok"
        assert server.connections == 1
        http.close()
        await eventually(lambda: server.open == 0)


@pytest.mark.parametrize("problem", ["another name", "another CA"])
async def test_a_certificate_that_is_not_to_be_trusted_is_an_error_and_nothing_is_sent(
    server: Server, authority: Authority, tmp_path: Path, problem: str
) -> None:
    name = "127.0.0.2" if problem == "another name" else "127.0.0.1"
    issuer = Authority(tmp_path / "other") if problem == "another CA" else authority
    tls = serving(issuer, x509.IPAddress(ip_address(name)))
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listener:
        http = HTTPConnections("127.0.0.1", listener.sockets[0].getsockname()[1], trusting(authority))
        with pytest.raises(ssl.SSLError):
            await http.exchange(REQUEST)
    assert server.requests == 0


async def test_connecting_takes_so_long_at_most(authority: Authority) -> None:
    is_closed = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        is_closed.set()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        http = HTTPConnections("127.0.0.1", port, trusting(authority), connect_timeout=0.1)
        with pytest.raises(SlowConnectError):
            await http.exchange(REQUEST)
        await is_closed.wait()
