"""Heads of requests that never end: nobody has shown a credential yet."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server import request as requests
from rpcshare.server.http_protocol import MAX_HEAD, HttpProtocol
from support.running_server import RunningServer

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        REQUEST + b"X-Endless: " + b"a" * (MAX_HEAD + 1),
        REQUEST + b"X-Many: abcdefgh\r\n" * (MAX_HEAD // 18 + 1),
        b"GET /" + b"a" * (MAX_HEAD + 1),
    ],
)
async def test_a_head_without_an_end_is_refused(server: RunningServer, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
    writer.close()


async def test_trailers_without_an_end_are_refused(server: RunningServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /api/share/nothing1/sync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"2\r\n{}\r\n0\r\n" + b"X-Many: abcdefgh\r\n" * (MAX_HEAD // 9))
    assert await reader.read() == b""
    writer.close()


async def test_a_large_body_is_no_large_head(server: RunningServer) -> None:
    body = b'{"secret":"x","data":[],"more":"' + b"x" * (4 * MAX_HEAD) + b'"}'
    head = b"POST /api/share/nothing1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for _ in range(2):  # the same connection takes another request
        writer.write(head + body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        head_of_answer = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head_of_answer.lower().split(b"\r\n") if b"content-length" in line)
        await reader.readexactly(int(length.partition(b":")[2]))
    writer.close()


class Impatient(HttpProtocol):
    head_timeout = 0.05


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """Serve with a protocol that waits for nobody; yield the port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        answer: Response = PlainTextResponse(body or "nothing")
        await answer(scope, receive, send)

    config = uvicorn.Config(app, http=Impatient, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await running


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"\r\n", REQUEST + b"X-Slow: y"])
async def test_whoever_does_not_finish_a_head_is_let_go(sent: bytes) -> None:
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()


async def test_a_request_whose_head_is_there_is_not_hurried() -> None:
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\no")
        await _let_go(port)  # another connection, which takes as long as a head may
        writer.write(b"k")
        assert (await reader.read()).endswith(b"\r\n\r\nok")
        writer.close()


async def _let_go(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()


async def test_a_body_that_hardly_arrives_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_PATIENCE", 0.05)

    async def receive() -> dict[str, object]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    scope = {"type": "http", "method": "POST", "headers": [], "path": "/", "query_string": b""}
    with pytest.raises(ShareError) as refused:
        await requests.read_body(Request(scope, receive), 0)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
