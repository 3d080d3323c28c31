"""What becomes of the stubs, the calls and the targets of a session that ends."""

import gc
import traceback
import weakref
from typing import Any, cast

import pytest
from transcript import Api, BareSession, Counter, Holder, awaiting, call

from rpcshare.rpc import (
    Promise,
    RpcTarget,
    Session,
    SessionClosedError,
    Stub,
)


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
        # Compiled, a session takes no weak references; what it alone keeps is gone when it is.
        kept_by_it = weakref.ref(server.session.remote_main)
        del server
        gc.collect()
        assert kept_by_it() is None

    def test_leaves_nothing_of_it_reachable_by_a_stub_but_the_reason(self) -> None:
        session = Session(Counter())
        counter = weakref.ref(cast("Any", session.exported(0)).target)
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
        client.main.on_broken(lambda reason: 1 / 0)  # type: ignore[arg-type]
        client.main.on_broken(reasons.append)
        waiting = await awaiting(client.main.f())
        client.session.close(SessionClosedError("gone"))
        assert len(reasons) == 1
        with pytest.raises(SessionClosedError):
            await waiting
        assert "ZeroDivisionError" in caplog.text


class TestWhatTheApplicationDoesMeanwhile:
    """The application's own code runs in the middle of all this, and may use the session."""

    async def test_on_broken_may_make_calls_which_fail(self) -> None:
        client = BareSession()
        made: list[Promise] = []
        client.main.on_broken(lambda reason: made.append(client.main.f(Counter())))
        client.session.close(SessionClosedError("gone"))
        with pytest.raises(SessionClosedError, match="gone"):
            await made[0]

    def test_dispose_may_call_the_peer(self) -> None:
        class Polite(RpcTarget):
            def dispose(self) -> None:
                client.main.goodbye().dispose()

        client = BareSession()
        client.main.f(Polite()).dispose()
        client.sent()
        client.feed(["release", -1, 1])
        assert client.sent() == [["push", ["pipeline", 0, ["goodbye"], []]], ["release", 2, 1]]

    def test_dispose_may_end_the_session(self) -> None:
        class Drastic(RpcTarget):
            def dispose(self) -> None:
                client.session.close(SessionClosedError("that is all"))

        client, counter = BareSession(), Counter()
        client.main.f(Drastic(), counter).dispose()
        client.feed(["release", -1, 1], ["release", -2, 1])
        assert str(client.session.closed) == "that is all"
        assert counter.disposals == 1

    def test_a_method_may_end_the_session(self) -> None:
        def end() -> Counter:
            server.session.close(SessionClosedError("that is all"))
            return counter

        server, counter = BareSession(end), Counter()
        assert server.exchange(call(args=[]), ["pull", 1], call(args=[])) == []
        assert counter.disposals == 1


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
