"""Who keeps what alive, and until when."""

import asyncio
import copy
import gc
import pickle
import threading
from collections.abc import Callable

import pytest
from transcript import Api, BareSession, Counter, Holder, Pair, awaiting, call

from rpcshare.rpc import (
    DisposedError,
    EncodeError,
    Promise,
    RpcError,
    RpcTarget,
    SessionClosedError,
    Stub,
)

FRESH = BareSession().session.stats()


@pytest.fixture
def pair() -> Pair:
    return Pair(None, Api())


class TestTheTables:
    async def test_are_back_to_the_start_after_many_calls_of_every_kind(self, pair: Pair) -> None:
        main = pair.client.main
        for round_ in range(30):
            counter = Counter()
            calls = [
                main.square(round_),
                main.callSquare(main, 2),
                main.callBack(lambda value: value, {"a": [1]}),
                main.callBack(lambda value: 1 / 0, 5),
                main.makeCounter(1).increment(5),
                main.incrementCounter(counter),
                main.incrementCounter(main.makeCounter(3)),
                main.note(counter),
                main.note(main.square(2)),
                main.fail("no"),
                main.fail("no").deeper(main.square(3)),
                main.unsendable(),
                main.nowhere(counter),
                main.version,
                main.sameCounter().value,
            ]
            waiting = [await awaiting(each) for each in calls]
            with pytest.raises(EncodeError):
                main.note([counter, object()])
            pair.settle()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert not any(isinstance(outcome, SessionClosedError) for outcome in outcomes)
            assert outcomes[1] == {"result": 4}
        del calls, waiting, outcomes, main, counter
        pair.settle()
        assert pair.client.session.stats() == FRESH
        assert pair.server.session.stats() == FRESH

    async def test_are_back_to_the_start_when_nobody_waited(self, pair: Pair) -> None:
        for _ in range(10):
            with pair.client.main.makeCounter(1) as counter:
                counter.increment()
                pair.client.main.callBack(print, counter)
        pair.settle()
        assert pair.client.session.stats() == FRESH
        assert pair.server.session.stats() == FRESH

    async def test_are_back_to_the_start_when_waiting_was_given_up(self, pair: Pair) -> None:
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(wait(pair.client.main.makeCounter(1))) for _ in range(5)]
            await asyncio.sleep(0)
            while waiting:
                waiting.pop().cancel()
        pair.settle()
        assert pair.client.session.stats() == FRESH
        assert pair.server.session.stats() == FRESH


async def wait(promise: Promise) -> object:
    return await promise


class TestArguments:
    def test_a_stub_is_gone_when_the_call_has_returned(self) -> None:
        holder = Holder()
        BareSession(holder).exchange(call("take", args=[["export", -1]]))
        with pytest.raises(DisposedError):
            holder.stubs[0]()

    def test_a_stub_is_gone_when_the_call_has_failed(self) -> None:
        kept: list[Stub] = []

        def fail(stub: Stub) -> None:
            kept.append(stub)
            raise RpcError("no")

        assert BareSession(fail).exchange(call(args=[["export", -1]])) == [["release", -1, 1]]
        with pytest.raises(DisposedError):
            kept[0]()

    def test_a_dup_of_it_stays(self) -> None:
        holder = Holder()
        server = BareSession(holder)
        assert server.exchange(call("takeDup", args=[["export", -1]])) == []
        holder.stubs[0]().dispose()
        assert server.sent() == [["push", ["pipeline", -1, [], []]], ["release", 1, 1]]

    def test_a_stub_that_the_caller_passes_stays_the_callers(self) -> None:
        client = BareSession()
        counter = client.main.makeCounter()
        client.main.f(counter)
        client.sent()
        counter.increment()
        assert client.sent() == [["push", ["pipeline", 1, ["increment"], []]], ["release", 3, 1]]


class TestDisposingOfATarget:
    def test_takes_place_once_when_the_peer_has_released_it(self) -> None:
        counter = Counter()
        client = BareSession()
        client.main.f(counter, [counter])
        client.feed(["release", -1, 1])
        assert counter.disposals == 0
        client.feed(["release", -1, 1])
        assert counter.disposals == 1

    def test_takes_place_once_when_the_session_ends(self) -> None:
        holder = Holder()
        server = BareSession(holder)
        server.exchange(
            call("give", args=[]), ["pull", 1], call("give", args=[]), call("counter"), ["pull", 3]
        )
        server.session.close(SessionClosedError("over"))
        assert holder.counter.disposals == 1

    def test_takes_place_once_though_it_was_released_before_the_session_ended(self) -> None:
        holder = Holder()
        server = BareSession(holder)
        server.exchange(call("give", args=[]), ["pull", 1], ["release", 1, 1], ["release", -1, 1])
        server.session.close(SessionClosedError("over"))
        assert holder.counter.disposals == 1

    def test_includes_the_main_target(self) -> None:
        main = Counter()
        server = BareSession(main)
        server.session.close(SessionClosedError("over"))
        server.session.close(SessionClosedError("over and over"))
        assert main.disposals == 1

    def test_includes_the_result_of_a_call_that_ended_after_the_session(self) -> None:
        server = BareSession(Holder())
        server.feed(call("give", args=[]), ["pull", 1])
        (giving,) = server.asked()
        server.session.close(SessionClosedError("over"))
        counter = Counter()
        giving.resolve([counter, counter])
        assert counter.disposals == 1

    def test_includes_the_result_of_a_call_that_was_released_before_it_returned(self) -> None:
        server = BareSession(Holder())
        server.feed(call("give", args=[]), ["release", 1, 1])
        (giving,) = server.asked()
        counter = Counter()
        giving.resolve(counter)
        assert counter.disposals == 1

    def test_does_not_take_place_while_another_call_returns_it(self) -> None:
        holder = Holder()
        server = BareSession(holder)
        server.exchange(call("give", args=[]), call("give", args=[]), ["pull", 2], ["release", 1, 1])
        assert holder.counter.disposals == 0

    def test_does_not_take_place_while_this_side_holds_a_stub_of_it(self) -> None:
        holder, counter = Holder(), Counter()
        client = BareSession(holder)
        client.main.f(counter)
        client.exchange(call("takeDup", args=[["import", -1]]), ["release", -1, 1])
        assert counter.disposals == 0
        holder.stubs[0].dispose()
        assert counter.disposals == 1

    def test_that_fails_is_logged_and_harms_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        class Grumpy(RpcTarget):
            def dispose(self) -> None:
                raise ValueError("I would rather stay")

        client, counter = BareSession(), Counter()
        client.main.f(Grumpy(), counter)
        client.feed(["release", -1, 1])
        assert client.session.closed is None
        client.main.f(Grumpy())
        client.session.close(SessionClosedError("over"))
        assert counter.disposals == 1
        assert caplog.text.count("the dispose() of a target failed") == 2


class TestGarbage:
    def test_a_stub_that_nobody_has_any_longer_is_released(self) -> None:
        client = BareSession()
        promise = client.main.makeCounter(1)
        client.sent()
        del promise
        assert client.sent() == [["release", 1, 1]]

    def test_a_stub_in_a_cycle_is_released_by_the_collector(self) -> None:
        client = BareSession()
        cycle: list[object] = [client.main.makeCounter(1)]
        cycle.append(cycle)
        client.sent()
        del cycle
        assert client.sent() == []
        gc.collect()
        assert client.sent() == [["release", 1, 1]]

    def test_the_driver_is_told_from_whatever_thread_the_collector_runs_in(self) -> None:
        told: list[int] = []
        client = BareSession(wake=lambda: told.append(threading.get_ident()))
        cycle: list[object] = [client.main.makeCounter(1)]
        cycle.append(cycle)
        client.sent()
        told.clear()
        del cycle
        other = threading.Thread(target=gc.collect)
        other.start()
        other.join()
        assert told
        assert told[0] != threading.get_ident()
        assert client.sent() == [["release", 1, 1]]

    async def test_a_value_that_nobody_has_any_longer_releases_the_stubs_in_it(self) -> None:
        client = BareSession()
        value = await awaiting(client.main.f())
        client.feed(["resolve", 1, {"a": [[["export", -1]]]}])
        await value
        client.sent()
        del value
        await asyncio.sleep(0)  # asyncio itself holds on to the future until then
        assert client.sent() == [["release", -1, 1]]

    async def test_stubs_in_a_value_are_of_whoever_awaited_it(self) -> None:
        client = BareSession()
        promise = client.main.f()
        value = await awaiting(promise)
        client.feed(["resolve", 1, {"a": ["export", -1]}])
        stub = (await value)["a"]
        promise.dispose()
        client.sent()
        stub().dispose()
        assert client.sent() == [["push", ["pipeline", -1, [], []]], ["release", 2, 1]]

    def test_stubs_in_a_value_that_nobody_awaited_go_with_the_promise(self) -> None:
        client = BareSession()
        promise = client.main.f()
        client.sent()
        client.feed(["resolve", 1, {"a": ["export", -1]}])
        assert client.sent() == [["release", 1, 1]]
        promise.dispose()
        assert client.sent() == [["release", -1, 1]]


class TestDisposingOfAStub:
    def test_twice_is_once(self) -> None:
        client = BareSession()
        promise = client.main.f()
        client.sent()
        promise.dispose()
        promise.dispose()
        assert client.sent() == [["release", 1, 1]]

    async def test_at_the_end_of_a_block(self) -> None:
        client = BareSession()
        async with client.main.f():
            with client.main.g():
                client.sent()
            assert client.sent() == [["release", 2, 1]]
        assert client.sent() == [["release", 1, 1]]

    def test_leaves_its_dups(self) -> None:
        client = BareSession()
        one = client.main.f()
        other = one.dup()
        one.dispose()
        client.sent()
        other.go()
        assert client.sent()[0] == ["push", ["pipeline", 1, ["go"], []]]
        other.dispose()
        assert client.sent() == [["release", 1, 1]]

    async def test_leaves_whoever_awaits_it(self) -> None:
        client = BareSession()
        promise = client.main.f()
        value = await awaiting(promise)
        promise.dispose()
        client.feed(["resolve", 1, 5])
        assert await value == 5

    @pytest.mark.parametrize(
        "use",
        [
            lambda stub: stub(),
            lambda stub: stub.method(),
            lambda stub: stub.name,
            lambda stub: stub["name"],
            lambda stub: stub.dup(),
            lambda stub: stub.on_broken(print),
        ],
        ids=["calling", "calling a method", "a property", "an item", "dup", "on_broken"],
    )
    def test_ends_its_use(self, use: Callable[[Stub], object]) -> None:
        client = BareSession()
        promise = client.main.f()
        promise.dispose()
        with pytest.raises(DisposedError):
            use(promise)

    async def test_ends_awaiting_it(self) -> None:
        promise = BareSession().main.f()
        promise.dispose()
        with pytest.raises(DisposedError):
            await promise

    def test_ends_its_use_as_an_argument_and_nothing_is_sent(self) -> None:
        client = BareSession()
        promise = client.main.f()
        promise.dispose()
        client.sent()
        with pytest.raises(DisposedError):
            client.main.g(Counter(), promise)
        assert client.sent() == []
        assert client.session.stats() == FRESH

    def test_shows(self) -> None:
        promise = BareSession().main.f()
        promise.dispose()
        assert repr(promise) == "<Promise (disposed)>"


class TestAStub:
    def test_shows_its_path_and_nothing_else(self) -> None:
        assert repr(BareSession().main.a["b"][0]) == "<Promise['a']['b'][0]>"

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_cannot_be_copied(self, duplicate: Callable[[Stub], object]) -> None:
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            duplicate(BareSession().main)

    @pytest.mark.parametrize("iterate", [list, iter, lambda stub: 1 in stub])
    def test_is_no_sequence(self, iterate: Callable[[Stub], object]) -> None:
        with pytest.raises(TypeError, match=r"not (iterable|a container or iterable)"):
            iterate(BareSession().main)

    def test_has_no_private_names_but_by_index(self) -> None:
        client = BareSession()
        with pytest.raises(AttributeError, match="is private"):
            client.main._secret  # noqa: B018 -- that it fails is the point
        with client.main["_secret"]():
            assert client.sent() == [["push", ["pipeline", 0, ["_secret"], []]]]
