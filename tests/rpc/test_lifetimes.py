"""Who keeps what alive, and until when."""

import asyncio
import copy
import gc
import pickle
import threading
import traceback
import weakref

import pytest
from transcript import Api, BareSession, Counter, awaiting, call

from rpcshare.rpc import (
    DisposedError,
    EncodeError,
    RpcError,
    RpcTarget,
    Session,
    SessionClosedError,
    Stub,
    rpc_method,
    rpc_property,
)

FRESH = BareSession().session.stats()


class Pair:
    """Two sessions that pass their messages to each other until neither has more to say."""

    def __init__(self, client_main: object, server_main: object) -> None:
        self.client = BareSession(client_main)
        self.server = BareSession(server_main)

    def settle(self) -> None:
        quiet = False
        while not quiet:
            quiet = True
            for one, other in ((self.client, self.server), (self.server, self.client)):
                one.carry_out()
                for message in one.sent():
                    quiet = False
                    other.feed(message)


@pytest.fixture
def pair() -> Pair:
    return Pair(None, Api())


class Holder(RpcTarget):
    """Keeps one counter, and stubs if it is told to."""

    def __init__(self) -> None:
        self.counter = Counter()
        self.stubs: list[Stub] = []

    @rpc_method("take(stub)")
    def take(self, stub: Stub) -> None:
        self.stubs.append(stub)

    @rpc_method("takeDup(stub)")
    def take_dup(self, stub: Stub) -> None:
        self.stubs.append(stub.dup())

    @rpc_method("give()")
    def give(self) -> Counter:
        return self.counter

    @rpc_property("counter")
    def read(self) -> Counter:
        return self.counter


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


async def wait(promise: Stub) -> object:
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
    def test_ends_its_use(self, use: object) -> None:
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
    def test_cannot_be_copied(self, duplicate: object) -> None:
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            duplicate(BareSession().main)

    @pytest.mark.parametrize("iterate", [list, iter, lambda stub: 1 in stub])
    def test_is_no_sequence(self, iterate: object) -> None:
        with pytest.raises(TypeError, match="not iterable"):
            iterate(BareSession().main)

    def test_has_no_private_names_but_by_index(self) -> None:
        client = BareSession()
        with pytest.raises(AttributeError, match="is private"):
            client.main._secret  # noqa: B018 -- that it fails is the point
        with client.main["_secret"]():
            assert client.sent() == [["push", ["pipeline", 0, ["_secret"], []]]]


class TestTheEndOfASession:
    async def test_fails_what_is_awaited_at_once(self) -> None:
        client = BareSession()
        waiting = [await awaiting(each) for each in (client.main.f(), client.main.g.h, client.main.f().x(1))]
        client.session.close(SessionClosedError("gone"))
        for each in waiting:
            with pytest.raises(SessionClosedError, match="gone"):
                await each

    async def test_fails_what_awaits_a_promise_within_a_value(self) -> None:
        client = BareSession()
        value = await awaiting(client.main.f())
        client.feed(["resolve", 1, [[["promise", -1]]]])
        client.session.close(SessionClosedError("gone"))
        with pytest.raises(SessionClosedError, match="gone"):
            await value

    async def test_leaves_values_that_have_arrived(self) -> None:
        client = BareSession()
        promise = client.main.f()
        client.feed(["resolve", 1, [[1, 2]]])
        client.session.close(SessionClosedError("gone"))
        assert await promise == [1, 2]

    async def test_fails_every_call_that_follows(self) -> None:
        client = BareSession()
        client.session.close(SessionClosedError("gone"))
        for promise in (client.main.f(Counter()), client.main.f, client.main.f().g()):
            with pytest.raises(SessionClosedError, match="gone"):
                await promise
        assert client.sent() == []

    async def test_is_told_to_many_without_gathering_the_frames_of_all(self) -> None:
        client = BareSession()
        client.session.close(SessionClosedError("gone"))
        promise = client.main.f()
        depths = []
        for _ in range(5):
            with pytest.raises(SessionClosedError) as caught:
                await promise
            depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
        assert depths == depths[:1] * 5

    def test_rejects_calls_that_have_not_begun(self) -> None:
        api = Api()
        server = BareSession(api)
        server.feed(call("note", args=[1]))
        server.session.close(SessionClosedError("gone"))
        server.carry_out()
        assert api.log == []
        assert server.session.stats().calls_in_flight == 0

    def test_does_not_let_waiting_calls_begin_when_what_they_waited_for_returns(self) -> None:
        api = Api()
        server = BareSession(api)
        server.feed(call("square", args=[1]), call("note", args=[["pipeline", 1]]))
        (square,) = server.asked()
        server.session.close(SessionClosedError("gone"))
        square.resolve(1)
        server.carry_out()
        assert api.log == []

    def test_is_final(self) -> None:
        client = BareSession()
        client.session.close(SessionClosedError("first"))
        client.session.close(SessionClosedError("second"))
        client.session.abort(SessionClosedError("third"))
        assert str(client.session.closed) == "first"
        assert client.sent() == []

    def test_leaves_nothing_of_it_reachable(self) -> None:
        holder = Holder()
        server = BareSession(holder)
        server.exchange(
            call("takeDup", args=[["export", -1]]),
            call("give", args=[]),
            ["pull", 2],
            call("nowhere", args=[["promise", -2]]),
            ["push", ["pipeline", 4, ["deeper"], [["export", -3]]]],
        )
        holder.stubs[0](holder.counter)
        server.session.close(SessionClosedError("gone"))
        holder.stubs.clear()
        session = weakref.ref(server.session)
        del server
        gc.collect()
        assert session() is None

    def test_leaves_nothing_of_it_reachable_by_a_stub_but_the_reason(self) -> None:
        session = Session(Counter())
        counter = weakref.ref(session.exported(0).target)
        main = session.remote_main
        session.close(SessionClosedError("gone"))
        del session
        gc.collect()
        assert counter() is None
        assert isinstance(main, Stub)


class TestOnBroken:
    def test_is_called_with_the_reason_when_the_session_ends(self) -> None:
        client = BareSession()
        reasons: list[Exception] = []
        client.main.on_broken(reasons.append)
        promise = client.main.f()
        promise.on_broken(reasons.append)
        error = SessionClosedError("gone")
        client.session.close(error)
        assert reasons == [error, error]

    def test_is_called_at_once_when_it_has_ended(self) -> None:
        client = BareSession()
        client.session.close(SessionClosedError("gone"))
        reasons: list[Exception] = []
        client.main.on_broken(reasons.append)
        assert len(reasons) == 1

    def test_is_called_when_the_call_fails(self) -> None:
        client = BareSession()
        reasons: list[Exception] = []
        promise = client.main.f()
        promise.on_broken(reasons.append)
        client.feed(["reject", 1, ["error", "Error", "no"]])
        assert [str(reason) for reason in reasons] == ["no"]

    def test_passes_to_the_stub_that_a_call_returned(self) -> None:
        client = BareSession()
        reasons: list[Exception] = []
        promise = client.main.f()
        promise.on_broken(reasons.append)
        client.feed(["resolve", 1, ["export", -1]])
        assert reasons == []
        client.session.close(SessionClosedError("gone"))
        assert len(reasons) == 1

    def test_is_not_called_for_a_value(self) -> None:
        client = BareSession()
        reasons: list[Exception] = []
        promise = client.main.f()
        promise.on_broken(reasons.append)
        client.feed(["resolve", 1, 5])
        client.session.close(SessionClosedError("gone"))
        assert reasons == []

    async def test_that_fails_is_logged_and_keeps_nobody_from_learning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = BareSession()
        reasons: list[Exception] = []
        client.main.on_broken(lambda reason: 1 / 0)
        client.main.on_broken(reasons.append)
        waiting = await awaiting(client.main.f())
        client.session.close(SessionClosedError("gone"))
        assert len(reasons) == 1
        with pytest.raises(SessionClosedError):
            await waiting
        assert "ZeroDivisionError" in caplog.text


class TestTwoSessionsOfOneProcess:
    """A stub of one session that is passed through another."""

    def test_a_target_that_came_through_one_does_not_depend_on_it(self) -> None:
        counter = Counter(5)
        holder = Holder()
        one, other = BareSession(holder), BareSession()
        one.main.f(counter)
        one.exchange(call("takeDup", args=[["import", -1]]))
        with other.main.g(holder.stubs[0]):
            assert other.sent() == [["push", ["pipeline", 0, ["g"], [["export", -1]]]]]
        one.session.close(SessionClosedError("gone"))
        other.feed(["push", ["pipeline", -1, ["increment"], []]], ["pull", 1])
        other.carry_out()
        assert other.sent()[-1] == ["resolve", 1, 6]

    def test_calls_to_the_peer_of_another_are_passed_on(self) -> None:
        holder = Holder()
        inner, outer = BareSession(holder), BareSession()
        inner.exchange(call("takeDup", args=[["export", -1]]))
        outer.main.f(holder.stubs[0])
        outer.sent()
        outer.exchange(["push", ["pipeline", -1, ["run"], [[[1]], ["export", -9]]]], ["pull", 1])
        assert inner.sent()[:2] == [
            ["push", ["pipeline", -1, ["run"], [[[1]], ["export", -1]]]],
            ["pull", 1],
        ]
        inner.feed(["resolve", 1, {"done": True}])
        assert outer.sent() == [["resolve", 1, {"done": True}]]

    def test_what_is_passed_on_breaks_with_where_it_came_from(self) -> None:
        holder = Holder()
        inner, outer = BareSession(holder), BareSession()
        inner.exchange(call("takeDup", args=[["export", -1]]))
        outer.main.f(holder.stubs[0])
        outer.sent()
        inner.session.close(SessionClosedError("the inner one is gone"))
        assert outer.exchange(["push", ["pipeline", -1, ["run"], []]], ["pull", 1]) == [
            ["reject", 1, ["error", "Error", "the inner one is gone"]]
        ]
        assert outer.session.closed is None
