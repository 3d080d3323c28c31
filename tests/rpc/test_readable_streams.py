"""Streams to read on the wire, message by message, and what becomes of them when something goes wrong."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from stream_peers import Tap, counting, endless
from wire import Wire, resolved, stream

from rpcshare.rpc import (
    EncodeError,
    ReadableStream,
    RpcError,
    RpcTarget,
    SessionClosedError,
    Stub,
    rpc_method,
)
from support.waiting import begun, eventually, limited

pytestmark = pytest.mark.on_trio_too


class TestAReadableStreamThatIsSent:
    async def test_has_its_pipe_announced_before_the_call_that_uses_it(self) -> None:
        async with Wire() as wire:
            wire.call("take", ReadableStream([1, ["two"]]))
            assert await wire.hear(5) == [
                ["pipe"],
                ["push", ["pipeline", 0, ["take"], [["readable", 1]]]],
                stream(1, "write", 1),
                stream(1, "write", [["two"]]),
                stream(1, "close"),
            ]

    async def test_leaves_no_trace_once_its_end_is_acknowledged(self) -> None:
        async with Wire() as wire:
            wire.main.ignore(ReadableStream(["a"])).dispose()
            assert await wire.hear(5) == [
                ["pipe"],
                ["push", ["pipeline", 0, ["ignore"], [["readable", 1]]]],
                ["release", 2, 1],
                stream(1, "write", "a"),
                stream(1, "close"),
            ]
            # The results of "stream" messages are released by their answer alone.
            await wire.say(resolved(3), resolved(4))
            assert await wire.hear(1) == [["release", 1, 1]]
            assert await wire.is_fresh()

    async def test_goes_out_with_a_result_just_so(self) -> None:
        async with Wire(Tap({"stream": ReadableStream(["a"])})) as wire:
            await wire.say(["push", ["pipeline", 0, ["give"], []]], ["pull", 1])
            assert await wire.hear(4) == [
                ["pipe"],
                ["resolve", 1, {"stream": ["readable", 1]}],
                stream(1, "write", "a"),
                stream(1, "close"),
            ]
            await wire.say(["release", 1, 1], resolved(2), resolved(3))
            assert await wire.hear(1) == [["release", 1, 1]]
            assert await wire.is_fresh()

    async def test_may_be_an_asynchronous_generator_that_a_method_is(self) -> None:
        class Source(RpcTarget):
            @rpc_method("count(to)")
            async def count(self, to: int) -> AsyncIterator[int]:
                for number in range(to):
                    yield number

        async with Wire(Source()) as wire:
            await wire.say(["push", ["pipeline", 0, ["count"], [2]]], ["pull", 1])
            assert await wire.hear(5) == [
                ["pipe"],
                ["resolve", 1, ["readable", 1]],
                stream(1, "write", 0),
                stream(1, "write", 1),
                stream(1, "close"),
            ]

    async def test_has_each_its_own_pipe_where_there_are_two(self) -> None:
        async with Wire() as wire:
            wire.call("take", [ReadableStream([]), ReadableStream([])])
            assert await wire.hear(5) == [
                ["pipe"],
                ["pipe"],
                ["push", ["pipeline", 0, ["take"], [[[["readable", 1], ["readable", 2]]]]]],
                stream(1, "close"),
                stream(2, "close"),
            ]

    async def test_may_be_a_chunk_of_another(self) -> None:
        async with Wire() as wire:
            wire.call("take", ReadableStream([ReadableStream(["inner"])]))
            assert await wire.hear(7) == [
                ["pipe"],
                ["push", ["pipeline", 0, ["take"], [["readable", 1]]]],
                ["pipe"],
                stream(1, "write", ["readable", 3]),
                stream(1, "close"),
                stream(3, "write", "inner"),
                stream(3, "close"),
            ]

    async def test_tells_the_reader_why_it_broke_off(self) -> None:
        async def failing() -> AsyncIterator[object]:
            yield "a"
            raise RpcError("no more paper", code="PAPER")

        async with Wire() as wire:
            wire.call("take", failing())
            assert (await wire.hear(4))[2:] == [
                stream(1, "write", "a"),
                stream(1, "abort", ["error", "Error", "no more paper", None, {"code": "PAPER"}]),
            ]
            await wire.say(resolved(3), resolved(4))
            assert await wire.hear(1) == [["release", 1, 1]]

    async def test_tells_the_reader_nothing_of_this_side_s_insides(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def failing() -> AsyncIterator[object]:
            raise KeyError("the password")
            yield

        async with Wire() as wire:
            wire.call("take", failing())
            abort = (await wire.hear(3))[2]
            assert abort == stream(
                1, "abort", ["error", "Error", "Internal server error", None, {"code": "INTERNAL"}]
            )

    async def test_has_its_source_closed_when_the_reader_refuses_a_chunk(self) -> None:
        closed: list[str] = []
        async with Wire() as wire:
            wire.call("take", endless(closed))
            await wire.hear(3)
            await wire.say(["reject", 3, ["error", "RangeError", "too much"]])
            assert await wire.hear(1) == [["release", 1, 1]]
            assert closed == ["closed"]  # though it waits for what it would yield next

            more: list[str] = []
            wire.call("take", counting(*range(3), closed=more))
            assert await wire.hear(6)
            await wire.say(["reject", 7, ["error", "RangeError", "too much"]])
            assert await wire.hear(1) == [["release", 4, 1]]
            assert more == ["closed"]

    async def test_ends_with_the_session_whatever_its_source_waits_for(self) -> None:
        closed: list[str] = []
        async with Wire() as wire:
            wire.call("take", endless(closed))
            await wire.hear(3)
            await wire.lose()
            await eventually(lambda: closed == ["closed"])

    async def test_can_be_sent_once(self) -> None:
        async with Wire() as wire:
            readable = ReadableStream([])
            wire.call("take", readable)
            with pytest.raises(EncodeError, match="once"):
                wire.call("take", readable)

    async def test_that_has_a_chunk_without_a_form_on_the_wire_breaks_off(self) -> None:
        async with Wire() as wire:
            wire.call("take", ReadableStream(["a", object()]))
            assert (await wire.hear(4))[3] == stream(
                1, "abort", ["error", "TypeError", "a value of type object cannot be sent"]
            )


class TestAReadableStreamThatIsReceived:
    async def test_has_each_chunk_acknowledged_when_it_is_read(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(
                ["pipe"],
                ["push", ["pipeline", 0, ["take"], [["readable", 1]]]],
                stream(1, "write", "a"),
                stream(1, "write", [["b"]]),
                stream(1, "close"),
            )
            readable = await tap.taken.get()
            assert isinstance(readable, ReadableStream)
            assert await wire.hear_all() == []
            assert await anext(readable) == "a"
            assert await wire.hear(1) == [resolved(3)]
            assert await anext(readable) == ["b"]
            assert await wire.hear(1) == [resolved(4)]
            with pytest.raises(StopAsyncIteration):
                await anext(readable)
            assert await wire.hear(1) == [resolved(5)]
            await wire.say(["release", 1, 1], ["release", 2, 1])
            tap.hold.set()
            assert await wire.is_fresh()

    async def test_goes_on_ending_once_it_has_ended(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["take"], [["readable", 1]]]])
            await wire.say(stream(1, "close"), ["release", 1, 1])
            readable: Any = await tap.taken.get()
            assert [value async for value in readable] == []
            assert [value async for value in readable] == []

    async def test_may_be_written_before_the_call_that_it_is_for(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], stream(1, "write", 1), stream(1, "close"))
            await wire.say(["push", ["pipeline", 0, ["readAll"], [["readable", 1]]]], ["pull", 4])
            assert await wire.hear(3) == [resolved(2), resolved(3), ["resolve", 4, [[1]]]]

    async def test_raises_what_the_writer_aborted_it_with(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["readAll"], [["readable", 1]]]], ["pull", 2])
            await wire.say(stream(1, "abort", ["error", "RangeError", "torn"]))
            assert await wire.hear(2) == [resolved(3), ["reject", 2, ["error", "RangeError", "torn"]]]

    async def test_drops_what_was_unread_when_it_is_aborted(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["take"], [["readable", 1]]]])
            await wire.say(stream(1, "write", "a"), stream(1, "abort", ["error", "Error", "torn"]))
            assert await wire.hear(2) == [["reject", 3, ["error", "Error", "torn"]], resolved(4)]
            readable = await tap.taken.get()
            with pytest.raises(RpcError, match="torn"):
                await anext(readable)  # type: ignore[call-overload]  # it is a stream

    async def test_fails_if_it_is_let_go_of_before_it_is_closed(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["readAll"], [["readable", 1]]]], ["pull", 2])
            await wire.say(["release", 1, 1])
            assert await wire.hear(1) == [
                ["reject", 2, ["error", "Error", "the stream was disposed without calling close"]]
            ]

    async def test_refuses_what_the_writer_sends_after_the_reader_has_cancelled(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["take"], [["readable", 1]]]])
            await wire.say(stream(1, "write", "a"))
            readable = await tap.taken.get()
            assert isinstance(readable, ReadableStream)
            await readable.cancel(RpcError("enough"))
            assert await wire.hear(1) == [["reject", 3, ["error", "Error", "enough"]]]
            await wire.say(stream(1, "write", "b"), stream(1, "close"))
            assert await wire.hear(2) == [
                ["reject", 4, ["error", "Error", "enough"]],
                ["reject", 5, ["error", "Error", "enough"]],
            ]

    @pytest.mark.parametrize("late", ["write", "close"])
    async def test_refuses_what_comes_after_its_end(self, late: str) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], stream(1, "close"), stream(1, late, *["a"][: late == "write"]))
            assert await wire.hear(1) == [["reject", 3, ["error", "TypeError", "the stream is closed"]]]

    @pytest.mark.parametrize("call", [["write"], ["write", 1, 2], ["flush"]], ids=str)
    async def test_takes_no_other_calls(self, call: list[object]) -> None:
        async with Wire() as wire:
            await wire.say(["pipe"], stream(1, *call))  # type: ignore[arg-type]  # the first is a name
            why = "a stream takes write(chunk), close() and abort(reason)"
            assert await wire.hear(1) == [["reject", 2, ["error", "Error", why]]]

    async def test_is_no_promise(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], ["pull", 1], ["push", ["pipeline", 0, ["echo"], [["pipeline", 1]]]])
            await wire.say(["pull", 2])
            why = ["error", "Error", "a stream is no promise"]
            assert await wire.hear(2) == [["reject", 1, why], ["reject", 2, why]]

    async def test_is_cancelled_if_the_call_that_brought_it_does_not_read_it(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], stream(1, "write", "a"))
            await wire.say(["push", ["pipeline", 0, ["ignore"], [["readable", 1]]]])
            assert await wire.hear(1) == [["reject", 2, ["error", "Error", "the reader has gone"]]]

    async def test_is_cancelled_if_whoever_read_it_has_forgotten_it(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["take"], [["readable", 1]]]])
            await wire.say(stream(1, "write", "a"))
            readable = await tap.taken.get()
            assert await anext(readable) == "a"  # type: ignore[call-overload]  # it is a stream
            tap.hold.set()
            del readable
            await wire.say(stream(1, "write", "b"))
            assert await wire.hear(2) == [
                resolved(3),
                ["reject", 4, ["error", "Error", "the reader has gone"]],
            ]

    async def test_waits_for_the_promises_in_a_chunk_and_keeps_the_order(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["readAll"], [["readable", 1]]]], ["pull", 2])
            await wire.say(stream(1, "write", ["promise", -1]), stream(1, "write", "second"))
            await wire.say(stream(1, "close"))
            assert await wire.hear_all() == []
            await wire.say(["resolve", -1, "first"])
            assert await wire.hear(5) == [
                ["release", -1, 1],
                resolved(3),
                resolved(4),
                resolved(5),
                ["resolve", 2, [["first", "second"]]],
            ]

    async def test_breaks_off_at_a_promise_that_fails(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["readAll"], [["readable", 1]]]], ["pull", 2])
            await wire.say(stream(1, "write", ["promise", -1]), stream(1, "write", "second"))
            failure = ["error", "RangeError", "lost"]
            await wire.say(["reject", -1, failure])
            assert await wire.hear(4) == [
                ["release", -1, 1],
                ["reject", 3, failure],
                ["reject", 4, failure],
                ["reject", 2, failure],
            ]

    async def test_gives_the_stubs_in_a_chunk_to_the_reader(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["take"], [["readable", 1]]]])
            await wire.say(stream(1, "write", ["export", -1]))
            chunk = await anext(await tap.taken.get())  # type: ignore[call-overload]  # it is a stream
            assert isinstance(chunk, Stub)
            chunk("still there").dispose()
            chunk.dispose()
            assert await wire.hear(4) == [
                resolved(3),
                ["push", ["pipeline", -1, [], ["still there"]]],
                ["release", 1, 1],
                ["release", -1, 1],
            ]

    async def test_lets_go_of_the_stubs_in_chunks_that_nobody_reads(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], stream(1, "write", ["export", -1]), stream(1, "abort"))
            assert await wire.hear(3) == [
                ["release", -1, 1],
                ["reject", 2, ["error", "Error", "the stream was aborted"]],
                resolved(3),
            ]

    async def test_may_be_read_again_after_waiting_for_it_was_given_up(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["take"], [["readable", 1]]]])
            readable = await tap.taken.get()
            with pytest.raises(TimeoutError):
                async with limited(0.01):
                    await anext(readable)  # type: ignore[call-overload]  # a stream
            await wire.say(stream(1, "write", "a"))
            assert await anext(readable) == "a"  # type: ignore[call-overload]  # it is a stream

    @pytest.mark.parametrize(
        ("messages", "why"),
        [
            ([["readable", 1]], "1 is not exported"),
            ([["readable", 0]], "0 is no pipe, or is read already"),
            ([["readable", "0"]], "malformed or unknown expression: 'readable'"),
            ([["readable"]], "malformed or unknown expression: 'readable'"),
        ],
        ids=str,
    )
    async def test_must_be_there(self, messages: list[object], why: str) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(*(["push", message] for message in messages))
            assert await wire.hear(1) == [["abort", ["error", "Error", why]]]

    async def test_can_be_referred_to_once(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["pipe"], ["push", ["readable", 1]], ["push", ["readable", 1]])
            why = "1 is no pipe, or is read already"
            assert await wire.hear_the_end() == [["abort", ["error", "Error", why]]]

    async def test_fails_for_its_reader_when_the_session_ends(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["pipe"], ["push", ["pipeline", 0, ["take"], [["readable", 1]]]])
            readable = await tap.taken.get()
            reading = begun(anext(readable))  # type: ignore[call-overload]  # a stream
            await wire.lose()
            with pytest.raises(SessionClosedError):
                await reading
