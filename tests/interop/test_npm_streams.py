"""Streams and maps between this package and npm's capnweb, over a WebSocket (streams_client.mjs)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from rpcshare.rpc import (
    Connection,
    ReadableStream,
    RpcError,
    RpcTarget,
    Session,
    Stub,
    WebSocketTransport,
    WritableStream,
    rpc_method,
)
from rpcshare.rpc.flow import INITIAL_WINDOW

pytestmark = pytest.mark.node

NODE = Path(__file__).parent.parent / "node"
CHUNK = 16 * 1024


class Counter(RpcTarget):
    @rpc_method("increment(by)")
    def increment(self, by: int) -> int:
        return 100 + by


class Streams(RpcTarget):
    """The server's side of each scenario."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.may_read = asyncio.Event()
        self.source_closed = asyncio.Event()
        self.taken = 0
        self.log: list[object] = []

    @rpc_method("consume(stream)")
    async def consume(self, stream: ReadableStream) -> int:
        await self.may_read.wait()
        return sum([1 async for _ in stream])

    @rpc_method("unreadWhenItStops()")
    async def unread(self) -> int:
        session = self.session
        assert session is not None
        return await _standstill(lambda: session.exports._unread)

    @rpc_method("goOn()")
    def go_on(self) -> None:
        self.may_read.set()

    @rpc_method("produce(count)")
    async def produce(self, count: int) -> AsyncIterator[str]:
        try:
            for self.taken in range(1, count + 1):
                yield "x" * CHUNK
        finally:
            self.source_closed.set()

    @rpc_method("takenWhenItStops()")
    async def taken_when_it_stops(self) -> int:
        return await _standstill(lambda: self.taken * CHUNK) // CHUNK

    @rpc_method("closed()")
    async def closed(self) -> str:
        await self.source_closed.wait()
        return "closed"

    @rpc_method("echo(value)")
    def echo(self, value: object) -> object:
        return value

    @rpc_method("echoAll(stream)")
    async def echo_all(self, stream: ReadableStream) -> list[object]:
        return [value async for value in stream]

    @rpc_method("first(stream)")
    async def first(self, stream: ReadableStream) -> None:
        await anext(stream)
        await stream.cancel(RpcError("enough"))

    @rpc_method("callEach(stream)")
    async def call_each(self, stream: ReadableStream) -> list[object]:
        results = []
        async for number, function in _enumerated(stream):
            with function:
                results.append(await function(number))
        return results

    @rpc_method("fill(stream, count)")
    async def fill(self, stream: WritableStream, count: int) -> None:
        async with stream:
            for number in range(count):
                await stream.write(number)

    @rpc_method("fillAndFail(stream)")
    async def fill_and_fail(self, stream: WritableStream) -> None:
        async with stream:
            raise RpcError("out of ink", code="INK")

    @rpc_method("sink()")
    def sink(self) -> WritableStream:
        return WritableStream.calling(self.log.append, close=lambda: self.log.append("closed"))

    @rpc_method("collected()")
    def collected(self) -> list[object]:
        return self.log

    @rpc_method("failing()")
    async def failing(self) -> AsyncIterator[int]:
        yield 1
        raise RpcError("no more paper", name="RangeError", code="PAPER")

    @rpc_method("list()")
    def rows(self) -> list[object]:
        return [{"id": number, "items": [[]] * number, "counter": Counter()} for number in range(3)]

    @rpc_method("twice(value)")
    def twice(self, value: int) -> int:
        return 2 * value

    @rpc_method("pair(one, other)")
    def pair(self, one: object, other: object) -> list[object]:
        return [one, other]

    @rpc_method("call(function, value)")
    def call(self, function: Stub, value: object) -> object:
        return function(value)


async def _standstill(in_flight: Callable[[], int]) -> int:
    """Return the bytes that are on their way once the writer has filled the first window."""
    while in_flight() < INITIAL_WINDOW:  # noqa: ASYNC110 -- the tables tell nobody
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # for what would come if more did
    return in_flight()


async def _enumerated(stream: ReadableStream) -> AsyncIterator[tuple[int, Stub]]:
    number = 0
    async for value in stream:
        assert isinstance(value, Stub)
        yield (number := number + 1), value


async def play(node: str, scenario: str) -> Any:
    """Return what the client's side of ``scenario`` returns; nothing may be left of it here."""
    target = Streams()

    async def handle(websocket: ServerConnection) -> None:
        connection = Connection(WebSocketTransport(websocket), target)
        target.session = connection.session
        await connection.run()

    async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(node, "streams_client.mjs", f"ws://127.0.0.1:{port}", scenario),
            cwd=NODE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            printed, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    return json.loads(printed)["returned"]


class TestAWriterOfNpm:
    async def test_lets_a_reader_of_ours_hold_no_more_than_its_window(self, node: str) -> None:
        played = await play(node, "writesToASlowReader")
        assert played["read"] == 100
        assert INITIAL_WINDOW <= played["unread"] < INITIAL_WINDOW + 2 * CHUNK

    async def test_gets_back_what_it_sent_through_our_echo(self, node: str) -> None:
        kinds = ["number", "string", "object", "object", "object", "undefined", "bigint", "object"]
        played = await play(node, "sendsEveryKindOfChunk")
        assert played == {"same": True, "bytes": [5], "types": kinds}

    async def test_sends_stubs_that_our_reader_may_call(self, node: str) -> None:
        assert await play(node, "sendsStubsInChunks") == {"called": [1, -2], "result": [1, 2]}

    async def test_writes_to_a_sink_of_ours(self, node: str) -> None:
        assert await play(node, "writes") == [1, 2, 3, "closed"]

    async def test_tells_our_reader_why_it_broke_off(self, node: str) -> None:
        assert await play(node, "sendsWhatFails") == {"name": "RangeError", "message": "torn"}

    async def test_is_cancelled_by_our_reader(self, node: str) -> None:
        assert await play(node, "isCancelled") == "enough"


class TestAReaderOfNpm:
    async def test_holds_no_more_of_ours_than_the_window(self, node: str) -> None:
        played = await play(node, "readsSlowly")
        assert played["read"] == 100
        assert INITIAL_WINDOW // CHUNK <= played["taken"] <= INITIAL_WINDOW // CHUNK + 3

    async def test_has_its_sink_written_to_and_closed_or_aborted(self, node: str) -> None:
        assert await play(node, "isWrittenTo") == {
            "log": [0, 1, 2, "closed", "aborted: out of ink"],
            "failed": {"name": "Error", "message": "out of ink", "code": "INK"},
        }

    async def test_fails_our_writer_when_its_sink_refuses(self, node: str) -> None:
        assert await play(node, "refusesAWrite") == {"name": "RangeError", "message": "full"}

    async def test_learns_why_our_source_failed(self, node: str) -> None:
        assert await play(node, "readsWhatFails") == {
            "name": "RangeError",
            "message": "no more paper",
            "code": "PAPER",
        }

    async def test_ends_our_source_by_cancelling(self, node: str) -> None:
        assert await play(node, "cancels") == "closed"


async def test_maps_of_npm_are_applied_here(node: str) -> None:
    assert await play(node, "maps") == [
        [{"id": 0, "twice": 0}, {"id": 1, "twice": 2}, {"id": 2, "twice": 4}],
        [[], [[1, []]], [[2, []], [2, []]]],
        [100, 101, 102],
        None,
        8,
    ]
