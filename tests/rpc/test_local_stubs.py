"""Stubs and promises that are made here and belong to no session."""

import asyncio
import gc
import weakref
from array import array

import pytest
from transcript import BareSession, Counter

from rpcshare import rpc
from rpcshare.rpc import Connection, Promise, RpcError, RpcTarget, SessionClosedError, Stub, rpc_method
from rpcshare.rpc.payload import settle
from support.narrowing import not_none
from support.waiting import eventually


class TestAStub:
    async def test_is_called_like_any_other(self) -> None:
        counter = rpc.stub(Counter(5))
        assert await counter.increment(2) == 7
        assert await counter.value == 7

    async def test_may_stand_for_a_function(self) -> None:
        async def double(value: int) -> int:
            await asyncio.sleep(0)
            return 2 * value

        assert await rpc.stub(double)(4) == 8

    async def test_may_stand_for_a_value(self) -> None:
        stub = rpc.stub({"list": [Counter(1)], "a": 5})
        assert await stub.a == 5
        assert await stub["list"][0].increment() == 2

    async def test_of_a_stub_is_another_for_the_same(self) -> None:
        counter = Counter()
        with rpc.stub(counter) as stub, rpc.stub(stub):
            pass
        assert counter.disposals == 1

    async def test_has_its_calls_carried_out_in_order(self) -> None:
        begun: list[int] = []

        async def note(number: int) -> None:
            begun.append(number)

        def note_at_once(number: int) -> None:
            begun.append(number)

        stub = rpc.stub({"a": note, "b": note_at_once})
        await asyncio.gather(stub.a(1), stub.b(2), stub.a(3), stub.b(4))
        assert begun == [1, 2, 3, 4]

    async def test_passes_errors_on_as_they_are(self) -> None:
        def fail() -> None:
            raise ValueError("of this process")

        with pytest.raises(ValueError, match="of this process"):
            await rpc.stub(fail)()

    async def test_can_be_mapped(self) -> None:
        doubled = rpc.stub({"list": [1, 2]})["list"].map(lambda number: {"number": number})
        assert await doubled == [{"number": 1}, {"number": 2}]

    async def test_disposes_of_its_target_when_the_last_duplicate_goes(self) -> None:
        counter = Counter()
        stub = rpc.stub(counter)
        other = stub.dup()
        stub.dispose()
        assert counter.disposals == 0
        other.dispose()
        assert counter.disposals == 1

    async def test_is_let_go_of_by_the_garbage_collector(self) -> None:
        counter = Counter()
        rpc.stub(counter)
        gc.collect()
        await eventually(lambda: counter.disposals == 1)

    def test_needs_a_running_event_loop(self) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            rpc.stub(Counter())


class TestAStubThatIsSent:
    async def test_to_several_sessions_keeps_its_target_until_all_have_let_go(self) -> None:
        counter = Counter()
        one, other = BareSession(), BareSession()
        with rpc.stub(counter) as stub:
            one.main.take(stub)
            other.main.take([stub, stub])
        for side in (one, other):
            assert ["export", -1] in side.sent()[0][1][3] or side is other
        one.exchange(["release", -1, 1])
        assert counter.disposals == 0
        other.exchange(["release", -1, 2])
        assert counter.disposals == 1

    async def test_keeps_its_target_when_a_session_ends(self) -> None:
        counter = Counter()
        side = BareSession()
        with rpc.stub(counter) as stub:
            side.main.take(stub)
            side.session.close(SessionClosedError("lost"))
            assert counter.disposals == 0
            assert await stub.increment() == 1
        assert counter.disposals == 1

    async def test_is_called_by_the_peer_within_the_limits_of_its_session(self) -> None:
        side = BareSession(limits=rpc.Limits(calls_in_flight=1))
        with rpc.stub(Counter()) as stub:
            side.main.take(stub)
        side.sent()
        side.feed(["push", ["pipeline", -1, ["increment"], []]])
        side.feed(["push", ["pipeline", -1, ["increment"], []]])
        assert not_none(side.session.closed).message == "limit exceeded: calls in flight (at most 1)"

    async def test_comes_home_as_what_it_was(self) -> None:
        counter = Counter()
        seen: list[Stub] = []

        def take(stub: Stub) -> None:
            seen.append(stub.dup())

        side = BareSession(take)
        with rpc.stub(counter) as stub:
            side.main.take(stub)
        side.exchange(["push", ["pipeline", 0, [], [["import", -1]]]])
        assert await seen[0].increment() == 1


class TestAPromise:
    async def test_is_what_the_awaitable_yields(self) -> None:
        async def work() -> list[int]:
            return [1]

        promise = rpc.promise(work())
        assert isinstance(promise, Promise)
        assert await promise == [1]

    async def test_of_a_promise_is_what_that_yields(self) -> None:
        assert await rpc.promise(rpc.stub(Counter(1)).increment()) == 2

    async def test_raises_what_the_awaitable_does(self) -> None:
        async def work() -> None:
            raise ValueError("of this process")

        with pytest.raises(ValueError, match="of this process"):
            await rpc.promise(work())

    async def test_of_what_is_cancelled_fails(self) -> None:
        future = asyncio.get_running_loop().create_future()
        promise = rpc.promise(future)
        future.cancel()
        with pytest.raises(RpcError, match="cancelled"):
            await promise

    async def test_queues_calls_in_order_until_it_settles(self) -> None:
        future = asyncio.get_running_loop().create_future()
        counter = rpc.promise(future)
        results = [counter.increment(), counter.increment(10), counter.value]
        future.set_result(Counter())
        assert await asyncio.gather(*results) == [1, 11, 11]

    async def test_disposes_of_what_it_yielded_when_it_is_let_go_of(self) -> None:
        counter = Counter()
        future = asyncio.get_running_loop().create_future()
        future.set_result({"deep": [counter]})
        promise = rpc.promise(future)
        has_settled = asyncio.Event()
        settle(promise, lambda _outcome: has_settled.set())
        await has_settled.wait()
        assert counter.disposals == 0
        promise.dispose()
        assert counter.disposals == 1

    async def test_takes_arguments_as_they_are_when_it_is_called(self) -> None:
        future = asyncio.get_running_loop().create_future()
        data, numbers, names = bytearray(b"a"), array("d", [1.5]), ["x"]
        result = rpc.promise(future)(data, numbers, names)
        data[0], numbers[0], names[0] = 0, 0, "y"
        future.set_result(lambda *arguments: list(arguments))
        assert await result == [b"a", array("d", [1.5]), ["x"]]

    async def test_gives_its_stubs_to_whoever_awaits_it(self) -> None:
        counter = Counter(3)

        async def work() -> object:
            return {"counter": counter}

        with rpc.promise(work()) as promise:
            value = await promise
        assert await value["counter"].increment() == 4
        assert counter.disposals == 0
        value["counter"].dispose()
        assert counter.disposals == 1


class TestAPromiseThatIsSent:
    async def test_settles_there_when_it_does_here(self) -> None:
        future = asyncio.get_running_loop().create_future()
        side = BareSession()
        with rpc.promise(future) as promise:
            side.main.take(promise)
        assert side.sent() == [["push", ["pipeline", 0, ["take"], [["promise", -1]]]], ["release", 1, 1]]
        future.set_result([1])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert side.sent() == [["resolve", -1, [[1]]]]

    async def test_tells_nothing_of_an_internal_error(self) -> None:
        future = asyncio.get_running_loop().create_future()
        side = BareSession()
        side.main.take(rpc.promise(future))
        side.sent()
        future.set_exception(ValueError("a detail"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert side.sent()[0] == [
            "reject",
            -1,
            ["error", "Error", "Internal server error", None, {"code": "INTERNAL"}],
        ]

    async def test_can_be_called_by_the_peer_before_it_settles(self) -> None:
        future = asyncio.get_running_loop().create_future()

        class Api(RpcTarget):
            @rpc_method("use(counter)")
            async def use(self, counter: object) -> object:
                return await counter.increment()  # type: ignore[attr-defined]

        near, far = rpc.memory_pair()
        async with Connection(far, Api()), Connection(near) as connection:
            used = asyncio.ensure_future(connection.remote_main.use(rpc.promise(future)))
            await asyncio.sleep(0)
            future.set_result(Counter(1))
            assert await used == 2

    async def test_to_several_sessions_disposes_once_of_what_it_yielded(self) -> None:
        counter = Counter()
        future = asyncio.get_running_loop().create_future()
        one, other = BareSession(), BareSession()
        with rpc.promise(future) as promise:
            one.main.take(promise)
            other.main.take(promise)
        future.set_result(counter)
        await eventually(lambda: any(message[0] == "resolve" for message in one.sent()))
        for side in (one, other):
            side.exchange(["release", -1, 1], ["release", -2, 1])
        assert counter.disposals == 1


async def test_nothing_is_left_of_a_stub_that_has_been_disposed_of() -> None:
    counter = Counter()
    stub = rpc.stub(counter)
    await stub.increment()
    stub.dispose()
    left = weakref.ref(counter)
    del counter, stub
    await asyncio.sleep(0)
    gc.collect()
    assert left() is None
