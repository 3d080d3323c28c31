"""Streams to write on the wire, message by message, and what becomes of them when something goes wrong."""

import pytest
from stream_peers import Recorded, Tap
from wire import Wire, resolved, stream

from rpcshare.rpc import (
    EncodeError,
    RpcError,
    RpcTarget,
    SessionClosedError,
    WritableStream,
    rpc_method,
)
from support.waiting import begun, eventually, gathered

pytestmark = pytest.mark.on_trio_too


class TestAWritableStreamThatIsSent:
    async def test_gets_what_the_peer_writes_one_after_another(self) -> None:
        async with Wire() as wire:
            sink = Recorded()
            wire.call("fill", WritableStream(sink), 2)
            assert await wire.hear(1) == [["push", ["pipeline", 0, ["fill"], [["writable", -1], 2]]]]
            await wire.say(stream(-1, "write", 0), stream(-1, "write", 1), stream(-1, "close"))
            assert await wire.hear(3) == [resolved(1), resolved(2), resolved(3)]
            assert sink.log == [0, 1, "closed"]
            await wire.say(["release", -1, 1])
            await eventually(lambda: wire.connection.session.stats().exports == 1)

    async def test_may_be_of_functions(self) -> None:
        log: list[object] = []

        async def close() -> None:
            log.append("closed")

        async with Wire() as wire:
            wire.call("fill", WritableStream.calling(log.append, close=close), 1)
            await wire.hear(1)
            await wire.say(stream(-1, "write", 0), stream(-1, "close"))
            assert await wire.hear(2) == [resolved(1), resolved(2)]
            assert log == [0, "closed"]

    async def test_answers_a_push_like_a_stream_message_but_when_asked(self) -> None:
        async with Wire() as wire:
            wire.call("fill", WritableStream(Recorded()), 1)
            await wire.hear(1)
            await wire.say(["push", ["pipeline", -1, ["write"], ["a"]]], ["pull", 1])
            assert await wire.hear(1) == [resolved(1)]

    async def test_fails_every_write_after_one_that_its_sink_refused(self) -> None:
        async with Wire() as wire:
            sink = Recorded()
            sink.fails = RpcError("disk full", code="ENOSPC")
            wire.call("fill", WritableStream(sink), 3)
            await wire.hear(1)
            await wire.say(stream(-1, "write", 0), stream(-1, "write", 1), stream(-1, "close"))
            failure = ["error", "Error", "disk full", None, {"code": "ENOSPC"}]
            assert await wire.hear(3) == [["reject", number, failure] for number in (1, 2, 3)]
            assert sink.log == []

    async def test_is_aborted_if_the_writer_lets_go_of_it_unclosed(self) -> None:
        async with Wire() as wire:
            sink = Recorded()
            wire.call("fill", WritableStream(sink), 3)
            await wire.hear(1)
            await wire.say(stream(-1, "write", 0))
            assert await wire.hear(1) == [resolved(1)]
            await wire.say(["release", -1, 1])
            await wire.hear_all()
            assert sink.log == [0, "aborted: the stream was disposed without calling close"]

    async def test_is_aborted_with_the_writer_s_reason(self) -> None:
        async with Wire() as wire:
            sink = Recorded()
            wire.call("fill", WritableStream(sink), 3)
            await wire.hear(1)
            await wire.say(stream(-1, "abort", ["error", "RangeError", "torn"]))
            assert await wire.hear(1) == [resolved(1)]
            await wire.hear_all()
            assert sink.log == ["aborted: RangeError: torn"]

    async def test_is_aborted_when_the_session_ends(self) -> None:
        async with Wire() as wire:
            sink = Recorded()
            wire.call("fill", WritableStream(sink), 3)
            await wire.hear(1)
            await wire.lose()
            await eventually(lambda: len(sink.log) == 1)
            assert "the connection was lost" in str(sink.log[0])

    async def test_can_be_sent_once(self) -> None:
        async with Wire() as wire:
            writable = WritableStream(Recorded())
            wire.call("fill", writable, 1)
            with pytest.raises(EncodeError, match="once"):
                wire.call("fill", writable, 1)


class TestAWritableStreamThatIsReceived:
    async def test_is_written_with_stream_messages_and_released_when_closed(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["push", ["pipeline", 0, ["fill"], [["writable", -1], 2]]], ["pull", 1])
            assert await wire.hear(3) == [
                stream(-1, "write", 0),
                stream(-1, "write", 1),
                stream(-1, "close"),
            ]
            await wire.say(resolved(1), resolved(2), resolved(3))
            assert await wire.hear(2) == [["release", -1, 1], ["resolve", 1, None]]
            await wire.say(["release", 1, 1])
            assert await wire.is_fresh()

    async def test_fails_for_the_writer_with_the_error_of_the_first_write_that_failed(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["push", ["pipeline", 0, ["fill"], [["writable", -1], 2]]], ["pull", 1])
            await wire.hear(3)
            await wire.say(["reject", 1, ["error", "RangeError", "full"]])
            await wire.say(["reject", 2, ["error", "Error", "no"]], ["reject", 3, ["error", "Error", "no"]])
            assert await wire.hear(2) == [
                ["release", -1, 1],
                ["reject", 1, ["error", "RangeError", "full"]],
            ]

    async def test_is_aborted_with_what_its_block_raised(self) -> None:
        class Failing(RpcTarget):
            @rpc_method("fill(stream)")
            async def fill(self, writable: WritableStream) -> None:
                async with writable:
                    await writable.write("a")
                    raise RpcError("cannot go on")

        async with Wire(Failing()) as wire:
            await wire.say(["push", ["pipeline", 0, ["fill"], [["writable", -1]]]], ["pull", 1])
            assert await wire.hear(2) == [
                stream(-1, "write", "a"),
                stream(-1, "abort", ["error", "Error", "cannot go on"]),
            ]
            await wire.say(resolved(1), resolved(2))
            assert await wire.hear(2) == [
                ["release", -1, 1],
                ["reject", 1, ["error", "Error", "cannot go on"]],
            ]

    async def test_is_released_with_the_call_that_brought_it(self) -> None:
        async with Wire(Tap()) as wire:
            await wire.say(["push", ["pipeline", 0, ["ignore"], [["writable", -1]]]])
            assert await wire.hear(1) == [["release", -1, 1]]

    async def test_takes_no_more_once_it_is_closed(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["push", ["pipeline", 0, ["take"], [["writable", -1]]]])
            writable = await tap.taken.get()
            assert isinstance(writable, WritableStream)
            closing = begun(writable.close())
            await wire.hear(1)
            await wire.say(resolved(1))
            await closing
            for late in (writable.write("b"), writable.close()):
                with pytest.raises(RpcError, match="the stream is closed"):
                    await late
            await writable.abort()  # which changes nothing any longer

    async def test_fails_for_its_writer_when_the_session_ends(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["push", ["pipeline", 0, ["take"], [["writable", -1]]]])
            writable = await tap.taken.get()
            assert isinstance(writable, WritableStream)
            closing = begun(writable.close())
            await wire.hear(1)
            await wire.lose()
            with pytest.raises(SessionClosedError):
                await closing

    async def test_keeps_the_order_of_writes_that_were_not_waited_for(self) -> None:
        tap = Tap()
        async with Wire(tap) as wire:
            await wire.say(["push", ["pipeline", 0, ["take"], [["writable", -1]]]])
            writable = await tap.taken.get()
            assert isinstance(writable, WritableStream)
            writes = [begun(writable.write(number)) for number in range(5)]
            closing = begun(writable.close())
            assert await wire.hear(6) == [
                *(stream(-1, "write", number) for number in range(5)),
                stream(-1, "close"),
            ]
            await wire.say(*(resolved(number) for number in range(1, 7)))
            await gathered([*writes, closing])
