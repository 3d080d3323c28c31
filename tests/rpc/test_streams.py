"""Streams that go through calls: from one of us to the other, and in results that were arguments."""

import pytest
from links import memory_link
from stream_peers import Recorded, Tap, counting
from wire import Wire, resolved, stream

from rpcshare.rpc import (
    Connection,
    Limits,
    ReadableStream,
    RpcError,
    RpcTarget,
    WritableStream,
    rpc_method,
)
from support.waiting import eventually

pytestmark = pytest.mark.on_trio_too


class TestAResultThatWasAnArgument:
    """It outlives the call, like any other result."""

    async def test_may_be_a_stub(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["push", ["pipeline", 0, ["echo"], [{"kept": ["export", -1], "more": [[1]]}]]])
            await wire.say(["pull", 1])
            assert await wire.hear(1) == [["resolve", 1, {"kept": ["import", -1], "more": [[1]]}]]
            await wire.say(["push", ["pipeline", 1, ["kept"], ["pipelined"]]])
            assert await wire.hear(1) == [["push", ["pipeline", -1, [], ["pipelined"]]]]
            await wire.say(["release", 1, 1], ["release", 2, 1])
            assert await wire.hear(2) == [["release", -1, 1], ["release", 1, 1]]
            assert await wire.is_fresh()

    async def test_leaves_the_other_stubs_to_the_call(self) -> None:
        class First(RpcTarget):
            @rpc_method("first(values)")
            def first(self, values: list[object]) -> object:
                return values[0]

        async with Wire(First()) as wire:
            await wire.say(["push", ["pipeline", 0, ["first"], [[[["export", -1], ["export", -2]]]]]])
            assert await wire.hear(1) == [["release", -2, 1]]
            await wire.say(["pull", 1])
            assert await wire.hear(1) == [["resolve", 1, ["import", -1]]]

    async def test_may_be_a_stream_to_read(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], stream(1, "write", "a"), stream(1, "close"))
            await wire.say(["push", ["pipeline", 0, ["echo"], [["readable", 1]]]], ["pull", 4])
            assert await wire.hear(6) == [
                ["pipe"],
                ["resolve", 4, ["readable", 1]],
                resolved(2),
                stream(1, "write", "a"),
                resolved(3),
                stream(1, "close"),
            ]
            await wire.say(resolved(2), resolved(3), ["release", 4, 1], ["release", 1, 1])
            assert await wire.hear(1) == [["release", 1, 1]]
            assert await wire.is_fresh()

    async def test_may_be_a_stream_to_write(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["push", ["pipeline", 0, ["echo"], [["writable", -1]]]], ["pull", 1])
            assert await wire.hear(1) == [["resolve", 1, ["writable", -1]]]
            await wire.say(stream(-1, "write", "a"), stream(-1, "close"))
            assert await wire.hear(1) == [stream(-1, "write", "a")]
            await wire.say(resolved(1))
            assert await wire.hear(2) == [resolved(2), stream(-1, "close")]
            await wire.say(resolved(2))
            assert await wire.hear(2) == [["release", -1, 1], resolved(3)]
            await wire.say(["release", 1, 1], ["release", -1, 1])
            assert await wire.is_fresh()

    async def test_may_be_passed_on_before_it_is_there(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["echo"], [["readable", 1]]]])
            await wire.say(["push", ["pipeline", 0, ["readAll"], [["pipeline", 2]]]], ["pull", 3])
            await wire.say(["release", 2, 1])
            await wire.say(stream(1, "write", "a"), stream(1, "close"))
            assert await wire.hear(3) == [resolved(4), resolved(5), ["resolve", 3, [["a"]]]]


class TestBetweenTwoOfUs:
    async def test_a_stream_goes_there_and_back(self) -> None:
        async with memory_link() as (one, other), Connection(other, Tap()), Connection(one) as client:
            values = [1, "two", [3], {"four": None}, b"five"]
            echoed = await client.remote_main.echo(ReadableStream(values))
            assert [value async for value in echoed] == values

    async def test_a_method_writes_to_the_caller_s_stream(self) -> None:
        sink = Recorded()
        async with memory_link() as (one, other), Connection(other, Tap()), Connection(one) as client:
            await client.remote_main.fill(WritableStream(sink), 1000)
        assert sink.log == [*range(1000), "closed"]

    async def test_a_reader_that_has_enough_ends_the_source(self) -> None:
        closed: list[str] = []
        async with (
            memory_link() as (one, other),
            Connection(other, Tap(counting(*range(100_000), closed=closed))),
            Connection(one) as client,
        ):
            numbers = await client.remote_main.give()
            assert await anext(numbers) == 0
            await numbers.cancel(RpcError("enough"))
            await eventually(lambda: closed == ["closed"])

    async def test_a_sink_that_fails_ends_the_source(self) -> None:
        sink = Recorded()
        sink.fails = RpcError("disk full")
        closed: list[str] = []

        class Copier(RpcTarget):
            @rpc_method("copy(source, sink)")
            async def copy(self, source: ReadableStream, writable: WritableStream) -> None:
                async with writable:
                    async for value in source:
                        await writable.write(value)

        async with (
            memory_link() as (one, other),
            Connection(other, Copier()),
            Connection(one) as client,
        ):
            with pytest.raises(RpcError, match="disk full"):
                await client.remote_main.copy(
                    counting(*["x" * 1000] * 2000, closed=closed), WritableStream(sink)
                )
            await eventually(lambda: closed == ["closed"])

    async def test_what_is_unread_beyond_the_limit_ends_the_session(self) -> None:
        limits = Limits(unread_bytes=10_000)
        async with Wire(Tap(), limits=limits) as wire:
            await wire.say(["pipe"], *(stream(1, "write", "x" * 1000) for _ in range(12)))
            heard = await wire.hear_the_end()
            assert heard[-1] == [
                "abort",
                ["error", "Error", "limit exceeded: unread bytes of streams (at most 10,000)"],
            ]
