"""What two peers say to each other, message by message: calls, their results and their errors.

``feed`` and ``exchange`` are what the peer says, ``sent`` is what the session says.
"""

import asyncio

import pytest
from transcript import Api, BareSession, Counter, awaiting, call

from rpcshare.rpc import (
    ProtocolError,
    RpcError,
    RpcTarget,
    SessionClosedError,
    Stub,
    rpc_method,
)


class TestACallThatArrives:
    def test_is_answered_once_its_value_is_asked_for(self, server: BareSession) -> None:
        assert server.exchange(call("square", args=[7])) == []
        assert server.exchange(["pull", 1]) == [["resolve", 1, 49]]

    def test_is_answered_when_it_returns_if_the_value_was_asked_for_before(self, server: BareSession) -> None:
        server.feed(call("square", args=[7]), ["pull", 1])
        assert server.sent() == []
        server.carry_out()
        assert server.sent() == [["resolve", 1, 49]]

    def test_is_carried_out_though_nobody_asks_for_its_value(self, server: BareSession, api: Api) -> None:
        assert server.exchange(call("note", args=["a"]), ["release", 1, 1]) == []
        assert api.log == ["a"]

    def test_is_not_answered_once_it_has_been_released(self, server: BareSession) -> None:
        server.feed(call("square", args=[7]), ["pull", 1], ["release", 1, 1])
        server.carry_out()
        assert server.sent() == []

    def test_is_answered_once_however_often_its_value_is_asked_for(self, server: BareSession) -> None:
        assert server.exchange(call("square", args=[7]), ["pull", 1], ["pull", 1]) == [["resolve", 1, 49]]

    def test_has_the_next_number_whatever_becomes_of_it(self, server: BareSession) -> None:
        answers = server.exchange(
            call("nowhere", args=[]),
            call("square", args=[2]),
            ["release", 2, 1],
            call("version"),
            ["pull", 3],
        )
        assert answers == [["resolve", 3, "1.2"]]

    def test_of_nothing_that_can_be_called_is_rejected(self, server: BareSession) -> None:
        assert server.exchange(call("nowhere", args=[]), ["pull", 1]) == [
            ["reject", 1, ["error", "TypeError", "'nowhere' is not a function."]]
        ]

    def test_of_a_property_of_undefined_is_rejected(self, server: BareSession) -> None:
        answers = server.exchange(call("a", "b"), ["pull", 1])
        assert answers == [
            ["reject", 1, ["error", "TypeError", "Cannot read properties of undefined (reading 'b')"]]
        ]

    def test_returns_undefined_for_a_property_that_is_not_there(self, server: BareSession) -> None:
        assert server.exchange(call("a"), ["pull", 1]) == [["resolve", 1, ["undefined"]]]

    def test_may_be_no_call_but_a_value_to_be_used_by_others(self, server: BareSession, api: Api) -> None:
        server.exchange(
            ["push", {"list": [[1, [[2, 3]]]]}], call("note", args=[["pipeline", 1, ["list", 1]]])
        )
        assert api.log == [[2, 3]]

    def test_fails_where_there_is_no_main_object(self) -> None:
        assert BareSession().exchange(call("square", args=[7]), ["pull", 1]) == [
            ["reject", 1, ["error", "Error", "this connection has no main object"]]
        ]


class TestPipeliningOnWhatHasNotReturned:
    def test_an_argument_waits_for_the_result_it_refers_to(self, server: BareSession, api: Api) -> None:
        server.feed(call("square", args=[3]), call("note", args=[["pipeline", 1]]))
        (square,) = server.asked()
        square.resolve(9)
        server.carry_out()
        assert api.log == [9]

    def test_an_argument_may_be_a_property_of_a_result(self, server: BareSession, api: Api) -> None:
        server.feed(call("wrap", args=["x"]), call("note", args=[["pipeline", 1, ["list", 0]]]))
        server.carry_out()
        assert api.log == ["x"]

    def test_an_argument_may_be_within_another(self, server: BareSession, api: Api) -> None:
        server.feed(call("square", args=[3]), call("note", args=[{"a": [[["pipeline", 1]]]}]))
        server.carry_out()
        assert api.log == [{"a": [9]}]

    def test_a_call_may_be_on_a_result(self, server: BareSession) -> None:
        server.feed(call("makeCounter", args=[5]), call("increment", args=[2], of=1), ["pull", 2])
        server.carry_out()
        assert server.sent() == [["resolve", 2, 7]]

    def test_a_call_may_be_on_a_property_of_a_result(self, server: BareSession) -> None:
        server.feed(
            call("twoCounters", args=[]), ["push", ["pipeline", 1, [1, "increment"], []]], ["pull", 2]
        )
        server.carry_out()
        assert server.sent() == [["resolve", 2, 11]]

    def test_a_property_may_be_read_of_a_result(self, server: BareSession) -> None:
        server.feed(call("makeCounter", args=[5]), call("value", of=1), ["pull", 2])
        server.carry_out()
        assert server.sent() == [["resolve", 2, 5]]

    def test_a_call_may_be_made_in_an_argument(self, server: BareSession, api: Api) -> None:
        server.exchange(call("note", args=[["pipeline", 0, ["square"], [4]]]))
        assert api.log == [16]

    def test_what_a_failed_call_would_have_returned_fails_too(self, server: BareSession, api: Api) -> None:
        error = ["error", "RangeError", "no", None, {"code": "OUT_OF_RANGE", "limit": 5}]
        server.feed(
            call("fail", args=["no"]),
            call("increment", args=[], of=1),
            call("note", args=[["pipeline", 1]]),
            ["pull", 2],
            ["pull", 3],
        )
        server.carry_out()
        assert server.sent() == [["reject", 2, error], ["reject", 3, error]]
        assert api.log == []

    def test_a_property_is_read_after_the_calls_that_were_sent_before(self, server: BareSession) -> None:
        server.feed(call("makeCounter", args=[5]))
        (pending,) = server.asked()
        server.feed(call("increment", args=[2], of=1), call("value", of=1), call("increment", args=[3], of=1))
        server.feed(["pull", 3])
        pending.resolve(Counter(5))
        server.carry_out()
        assert server.sent() == [["resolve", 3, 7]]

    def test_calls_on_one_target_arrive_in_the_order_they_were_sent(
        self, server: BareSession, api: Api
    ) -> None:
        server.feed(call("sameCounter", args=[]))
        (pending,) = server.asked()
        server.feed(
            ["push", ["pipeline", 1, ["increment"], [1]]],
            ["push", ["pipeline", 1]],
            ["push", ["pipeline", 2, ["increment"], [1]]],  # on a number: fails
            ["push", ["pipeline", 3, ["increment"], [10]]],
            ["push", ["pipeline", 1, ["increment"], [100]]],
        )
        pending.resolve(api.counter)
        assert [waiting.arguments.value for waiting in server.asked()] == [[1], [10], [100]]

    def test_a_long_chain_of_calls_gets_to_its_end(self, server: BareSession) -> None:
        length = 2_000
        server.feed(call("itself", args=[]), *(call("itself", args=[], of=n) for n in range(1, length)))
        server.feed(["push", ["pipeline", length, ["square"], [3]]], ["pull", length + 1])
        server.carry_out()
        assert server.sent() == [["resolve", length + 1, 9]]

    @pytest.mark.parametrize("as_argument", [False, True], ids=["as the target", "as an argument"])
    def test_a_long_chain_of_calls_fails_with_the_first(self, server: BareSession, as_argument: bool) -> None:
        server.feed(call("square", args=[0]))
        (first,) = server.asked()
        length = 2_000
        for previous in range(1, length):
            server.feed(
                call("note", args=[["pipeline", previous]])
                if as_argument
                else call("x", args=[], of=previous)
            )
        server.feed(["pull", length])
        first.reject(RpcError("no"))
        server.carry_out()
        assert server.sent() == [["reject", length, ["error", "Error", "no"]]]


class TestPipeliningToThePeer:
    """The forms of creating and filling a share in one round trip, and their parts."""

    def test_create_with_data_is_one_push(self, client: BareSession) -> None:
        client.main.createShare("ses_1", [{"type": "session", "data": {"id": "ses_1"}}])
        data = {"type": "session", "data": {"id": "ses_1"}}
        assert client.sent()[0] == ["push", ["pipeline", 0, ["createShare"], ["ses_1", [[data]]]]]

    async def test_create_then_sync_leave_before_any_reply(self, client: BareSession) -> None:
        share = client.main.createShare("ses_1")
        synced = await awaiting(client.main.syncShare(share.id, share.secret, []))
        assert client.sent() == [
            ["push", ["pipeline", 0, ["createShare"], ["ses_1"]]],
            [
                "push",
                ["pipeline", 0, ["syncShare"], [["pipeline", 1, ["id"]], ["pipeline", 1, ["secret"]], [[]]]],
            ],
            ["pull", 2],
        ]
        client.feed(["resolve", 2, {"success": True, "syncCount": 1}])
        assert await synced == {"success": True, "syncCount": 1}
        assert client.sent() == [["release", 2, 1]]

    def test_the_server_carries_out_create_then_sync_in_one_go(self) -> None:
        class Shares(RpcTarget):
            @rpc_method("createShare(sessionID)")
            def create(self, session_id: str) -> dict[str, str]:
                return {"id": session_id[-2:], "secret": "s"}

            @rpc_method("syncShare(shareID, secret, data)")
            def sync(self, share_id: str, secret: str, data: list[object]) -> list[object]:
                return [share_id, secret, data]

        server = BareSession(Shares())
        server.feed(
            ["push", ["pipeline", 0, ["createShare"], ["ses_1"]]],
            [
                "push",
                ["pipeline", 0, ["syncShare"], [["pipeline", 1, ["id"]], ["pipeline", 1, ["secret"]], [[]]]],
            ],
            ["pull", 2],
        )
        server.carry_out()
        assert server.sent() == [["resolve", 2, [["_1", "s", [[]]]]]]

    def test_a_call_is_sent_at_once_and_its_value_not_asked_for(self, client: BareSession) -> None:
        promise = client.main.square(3)
        assert client.sent() == [["push", ["pipeline", 0, ["square"], [3]]]]
        promise.dispose()
        assert client.sent() == [["release", 1, 1]]

    def test_a_path_is_sent_with_the_call(self, client: BareSession) -> None:
        promise = client.main.a["b"][0].c(1)
        assert client.sent() == [["push", ["pipeline", 0, ["a", "b", 0, "c"], [1]]]]
        promise.dispose()

    def test_naming_a_property_sends_nothing(self, client: BareSession) -> None:
        client.main.a.b.c  # noqa: B018 -- that it has no effect is the point
        assert client.sent() == []

    async def test_awaiting_a_property_reads_it(self, client: BareSession) -> None:
        value = await awaiting(client.main.a.b)
        assert client.sent() == [["push", ["pipeline", 0, ["a", "b"]]], ["pull", 1]]
        client.feed(["resolve", 1, 5])
        assert await value == 5
        assert client.sent() == [["release", 1, 1]]

    async def test_a_call_on_a_promise_refers_to_its_number(self, client: BareSession) -> None:
        with client.main.makeCounter(5) as counter:
            incremented = await awaiting(counter.increment(2))
            assert client.sent() == [
                ["push", ["pipeline", 0, ["makeCounter"], [5]]],
                ["push", ["pipeline", 1, ["increment"], [2]]],
                ["pull", 2],
            ]
            client.feed(["resolve", 2, 7])
            assert await incremented == 7

    async def test_a_call_on_a_promise_that_has_settled_goes_to_what_it_became(
        self, client: BareSession
    ) -> None:
        counter = client.main.makeCounter(5)
        value = await awaiting(counter)
        client.feed(["resolve", 1, ["export", -1]])
        assert isinstance(await value, Stub)
        client.sent()
        counter.increment()
        assert client.sent()[0] == ["push", ["pipeline", -1, ["increment"], []]]

    async def test_a_promise_of_a_promise_passes_calls_on(self, client: BareSession) -> None:
        outer = client.main.later()
        value = await awaiting(outer)
        client.feed(["resolve", 1, ["promise", -1]])
        client.sent()
        outer.go()
        assert client.sent()[0] == ["push", ["pipeline", -1, ["go"], []]]
        client.feed(["resolve", -1, "there"])
        assert await value == "there"

    async def test_whoever_waits_for_a_value_waits_for_the_promises_in_it(self, client: BareSession) -> None:
        promise = client.main.callSquare(3)
        waiting = [await awaiting(promise), await awaiting(promise)]
        client.feed(["resolve", 1, {"result": ["promise", -1]}])
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        client.feed(["resolve", -1, 9])
        assert await asyncio.gather(*waiting) == [{"result": 9}, {"result": 9}]

    async def test_a_promise_within_a_value_that_fails_fails_whoever_waits(self, client: BareSession) -> None:
        promise = client.main.callSquare(3)
        first = await awaiting(promise)
        client.feed(["resolve", 1, {"result": ["promise", -1]}], ["reject", -1, ["error", "Error", "no"]])
        for waiting in (first, promise):
            with pytest.raises(RpcError, match=r"^no$"):
                await waiting

    async def test_a_value_is_delivered_again_after_a_wait_that_was_cancelled(
        self, client: BareSession
    ) -> None:
        promise = client.main.callSquare(3)
        cancelled = await awaiting(promise)
        client.feed(["resolve", 1, {"result": ["promise", -1]}])
        cancelled.cancel()
        again = await awaiting(promise)
        assert not again.done()
        client.feed(["resolve", -1, 9])
        assert await again == {"result": 9}


class TestErrors:
    def test_an_error_meant_for_the_peer_arrives_with_its_properties(self, server: BareSession) -> None:
        assert server.exchange(call("fail", args=["too far"]), ["pull", 1]) == [
            ["reject", 1, ["error", "RangeError", "too far", None, {"code": "OUT_OF_RANGE", "limit": 5}]]
        ]

    def test_any_other_exception_is_concealed(
        self, server: BareSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert server.exchange(call("crash", args=[]), ["pull", 1]) == [
            ["reject", 1, ["error", "Error", "Internal server error", None, {"code": "INTERNAL"}]]
        ]
        assert "a detail of the implementation" in caplog.text

    def test_what_is_told_of_other_exceptions_is_the_servers_to_decide(self) -> None:
        server = BareSession(Api(), describe_error=lambda error: RpcError(type(error).__name__, code="X"))
        assert server.exchange(call("crash", args=[]), ["pull", 1]) == [
            ["reject", 1, ["error", "Error", "ValueError", None, {"code": "X"}]]
        ]

    def test_a_stack_is_never_sent(self, server: BareSession) -> None:
        server.feed(call("square", args=[1]), ["pull", 1])
        server.asked()[0].reject(RpcError("no", stack="Error: no\n    at secret.js:1"))
        assert server.sent() == [["reject", 1, ["error", "Error", "no"]]]

    def test_a_property_that_cannot_be_sent_is_left_out(self, server: BareSession) -> None:
        server.feed(call("square", args=[1]), ["pull", 1])
        server.asked()[0].reject(
            RpcError("no", properties={"good": [1], "bad": object(), "deep": [object()]})
        )
        assert server.sent() == [["reject", 1, ["error", "Error", "no", None, {"good": [[1]]}]]]

    def test_a_rejection_holds_no_stubs(self, server: BareSession) -> None:
        server.feed(call("square", args=[1]), ["pull", 1])
        server.asked()[0].reject(
            RpcError("no", properties={"counter": Counter(), "main": server.main, "n": 1})
        )
        assert server.sent() == [["reject", 1, ["error", "Error", "no", None, {"n": 1}]]]
        assert server.session.stats().exports == 2

    def test_an_error_within_a_value_may_hold_stubs(self, server: BareSession) -> None:
        server.feed(call("square", args=[1]), ["pull", 1])
        server.asked()[0].resolve([RpcError("no", properties={"counter": Counter()})])
        assert server.sent() == [
            ["resolve", 1, [[["error", "Error", "no", None, {"counter": ["export", -1]}]]]]
        ]

    async def test_an_error_of_the_peer_is_raised_as_it_came(self, client: BareSession) -> None:
        waiting = await awaiting(client.main.fail())
        client.feed(["reject", 1, ["error", "RangeError", "too far", "stack", {"code": "X", "more": [[1]]}]])
        with pytest.raises(RpcError) as caught:
            await waiting
        error = caught.value
        assert (error.name, error.message, error.code, error.stack) == ("RangeError", "too far", "X", "stack")
        assert error.properties == {"code": "X", "more": [1]}

    @pytest.mark.parametrize("thrown", ["no", 5, None, {"a": 1}], ids=repr)
    async def test_javascript_may_throw_anything(self, client: BareSession, thrown: object) -> None:
        waiting = await awaiting(client.main.fail())
        client.feed(["reject", 1, thrown])
        with pytest.raises(RpcError, match=f"^{thrown}$"):
            await waiting

    async def test_stubs_in_a_rejection_of_the_peer_are_released(self, client: BareSession) -> None:
        waiting = await awaiting(client.main.fail())
        client.sent()
        client.feed(["reject", 1, ["error", "Error", "no", None, {"stub": ["export", -1]}]])
        with pytest.raises(RpcError, match=r"^no$"):
            await waiting
        assert client.sent() == [["release", -1, 1], ["release", 1, 1]]


class TestAbort:
    def test_breaking_the_rules_is_answered_with_an_abort_that_says_why(self, server: BareSession) -> None:
        assert server.exchange(["pull", 9]) == [["abort", ["error", "Error", "9 is not exported"]]]
        assert isinstance(server.session.closed, ProtocolError)

    def test_nothing_is_said_after_an_abort(self, server: BareSession) -> None:
        server.feed(call("square", args=[1]), ["pull", 1])
        (pending,) = server.asked()
        server.feed(["pull", 9])
        server.sent()
        pending.resolve(1)
        assert server.exchange(call("square", args=[1]), ["pull", 2], ["pull", 99]) == []

    def test_an_abort_of_the_peer_is_not_answered(self, client: BareSession) -> None:
        assert client.exchange(["abort", ["error", "TypeError", "bad", None, {"code": "X"}]]) == []

    async def test_an_abort_of_the_peer_fails_what_waits_with_its_reason(self, client: BareSession) -> None:
        waiting = await awaiting(client.main.square(1))
        client.feed(["abort", ["error", "TypeError", "bad", None, {"code": "X"}]])
        with pytest.raises(SessionClosedError, match="the peer ended the session: bad") as caught:
            await waiting
        assert caught.value.code == "X"

    def test_this_side_may_abort(self, server: BareSession) -> None:
        server.session.abort(SessionClosedError("shutting down", code="BYE"))
        assert server.sent() == [["abort", ["error", "Error", "shutting down", None, {"code": "BYE"}]]]


class TestOrder:
    def test_calls_are_carried_out_in_the_order_in_which_they_arrived(
        self, server: BareSession, api: Api
    ) -> None:
        server.feed(*(call("note", args=[n]) for n in range(50)))
        server.carry_out()
        assert api.log == list(range(50))

    def test_a_call_that_waits_for_an_argument_does_not_hold_up_others(
        self, server: BareSession, api: Api
    ) -> None:
        server.exchange(call("note", args=[["promise", -1]]), call("note", args=["second"]))
        server.exchange(["resolve", -1, "first"])
        assert api.log == ["second", "first"]

    def test_calls_to_the_peer_leave_in_the_order_in_which_they_were_made(self, client: BareSession) -> None:
        promises = [client.main.note(n) for n in range(10)]
        assert client.sent() == [["push", ["pipeline", 0, ["note"], [n]]] for n in range(10)]
        for promise in promises:
            promise.dispose()

    def test_a_method_may_call_the_peer_while_it_runs(self, server: BareSession) -> None:
        class Chatty(RpcTarget):
            @rpc_method("hello(callback)")
            def hello(self, callback: Stub) -> str:
                callback("one").dispose()
                callback("two").dispose()
                return "three"

        server = BareSession(Chatty())
        assert server.exchange(call("hello", args=[["export", -1]]), ["pull", 1]) == [
            ["push", ["pipeline", -1, [], ["one"]]],
            ["release", 1, 1],
            ["push", ["pipeline", -1, [], ["two"]]],
            ["release", 2, 1],
            ["release", -1, 1],
            ["resolve", 1, "three"],
        ]
