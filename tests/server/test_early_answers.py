"""Answers that come before the body of their request, and what is made of the rest of it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from rpcshare.server.http_protocol import HttpProtocol
from support.running_server import RunningServer

SIZE = 8 * 2**20
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % SIZE
TOO_LARGE = (
    b"POST /api/share HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: 99000000\r\n\r\n"
)


class Impatient(HttpProtocol):
    linger = 0.05


class Patient(HttpProtocol):
    linger = 3600.0


@asynccontextmanager
async def listening(protocol: type[HttpProtocol]) -> AsyncIterator[int]:
    """Serve what refuses every request unread, but for GET; yield the port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status = 200 if Request(scope).method == "GET" else 401
        answer: Response = PlainTextResponse("answered", status)
        await answer(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(app, http=protocol, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await running


async def answered(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head.lower() + await reader.readexactly(len("answered"))


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then, as long as there is a connection."""
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.005)


async def test_a_body_that_drips_in_after_the_answer_does_not_keep_the_connection() -> None:
    async with listening(Impatient) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD)
        assert b"\r\nconnection: close\r\n" in await answered(reader)
        with pytest.raises(ConnectionError):
            await drip(writer)
        writer.close()


async def test_whoever_sends_all_of_the_body_first_sees_the_answer() -> None:
    async with listening(Patient) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD)
        await answered(reader)
        for _ in range(SIZE // 2**16):
            writer.write(b" " * 2**16)
            await writer.drain()
        assert await reader.read() == b""  # the end, and no reset
        writer.close()


async def test_nothing_that_comes_behind_such_a_body_is_answered() -> None:
    async with listening(Patient) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD)
        await answered(reader)
        writer.write(b" " * SIZE + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.read() == b""
        writer.close()


async def test_a_body_that_is_there_with_its_head_keeps_the_connection() -> None:
    async with listening(Impatient) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            assert b"connection: close" not in await answered(reader)
        writer.close()


async def test_requests_that_wait_for_each_other_keep_the_connection() -> None:
    async with listening(Impatient) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        writer.write(HEAD)
        for _ in range(3):
            assert b"connection: close" not in await answered(reader)
        assert b"connection: close" in await answered(reader)
        writer.close()


async def test_a_body_that_is_too_large_is_refused_and_not_waited_for(server: RunningServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(TOO_LARGE % server.token.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in await reader.read()  # its end comes at once
    writer.close()
