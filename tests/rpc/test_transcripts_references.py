"""What two peers say to each other, message by message: references, and how often they are released.

``feed`` and ``exchange`` are what the peer says, ``sent`` is what the session says.
"""

import asyncio
from typing import cast

import pytest
from transcript import Api, BareSession, Counter, awaiting, call

from rpcshare.rpc import (
    UNDEFINED,
    EncodeError,
    Stub,
)
from support.narrowing import not_none


class TestReferencesPassedToThePeer:
    def test_a_function_is_exported(self, client: BareSession) -> None:
        client.main.callBack(print, 1)
        assert client.sent()[0] == ["push", ["pipeline", 0, ["callBack"], [["export", -1], 1]]]

    def test_a_target_has_a_new_number_each_time_that_it_is_sent(self, client: BareSession) -> None:
        counter = Counter()
        with client.main.f(counter, counter), client.main.g(counter, Counter()):
            assert client.sent() == [
                ["push", ["pipeline", 0, ["f"], [["export", -1], ["export", -2]]]],
                ["push", ["pipeline", 0, ["g"], [["export", -3], ["export", -4]]]],
            ]

    def test_a_target_goes_when_each_of_its_numbers_was_released(self, client: BareSession) -> None:
        counter = Counter()
        with client.main.f(counter, counter), client.main.g(counter):
            client.sent()
            client.feed(["release", -1, 1], ["release", -3, 1])
            assert counter.disposals == 0
            client.feed(["release", -2, 1])
            assert counter.disposals == 1

    def test_a_number_is_not_used_again(self, client: BareSession) -> None:
        counter = Counter()
        with client.main.f(counter):
            client.feed(["release", -1, 1])
            client.sent()
            with client.main.f(counter):
                assert client.sent() == [["push", ["pipeline", 0, ["f"], [["export", -2]]]]]

    def test_the_peer_calls_it_by_its_number(self, client: BareSession) -> None:
        with client.main.f(lambda text: text.upper()):
            client.sent()
            assert client.exchange(["push", ["pipeline", -1, [], ["hello"]]], ["pull", 1]) == [
                ["resolve", 1, "HELLO"]
            ]

    def test_the_peer_may_send_it_back(self, client: BareSession) -> None:
        received: list[Stub] = []
        with client.main.f(Counter(1)), client.main.g(lambda stub: received.append(stub.dup())):
            client.sent()
            client.exchange(["push", ["pipeline", -2, [], [["import", -1]]]])
            received[0].increment(5)
            client.carry_out()
            answers = client.exchange(["push", ["pipeline", -1, ["value"]]], ["pull", 2])
            assert answers[-1] == ["resolve", 2, 6]
            received[0].dispose()

    def test_a_stub_of_the_peer_goes_back_by_its_number(self, server: BareSession, api: Api) -> None:
        server.exchange(call("keep", args=[["export", -7]]), call("note", args=[["import", 0]]))
        not_none(api.kept).run(api.kept)
        assert server.sent()[0] == ["push", ["pipeline", -7, ["run"], [["import", -7]]]]

    def test_a_promise_of_this_side_is_sent_with_its_value_to_follow(self, client: BareSession) -> None:
        with client.main.f(lambda: 41), client.main.g(lambda stub: stub.dup()):
            client.sent()
            client.feed(["push", ["pipeline", -2, [], [["import", -1]]]])
            (got,) = client.asked()
            own = cast("list[Stub]", got.arguments.value)[0]
            promise = own()
            with client.main.h(promise):
                assert client.sent() == [["push", ["pipeline", 0, ["h"], [["promise", -3]]]]]
                client.carry_out()
                assert client.sent() == [["resolve", -3, 41]]

    async def test_the_value_of_a_promise_never_precedes_the_promise(self, client: BareSession) -> None:
        known = client.main.config()
        counter = client.main.makeCounter(1)
        values = await awaiting(known), await awaiting(counter)
        client.feed(["resolve", 1, {"limit": 5}], ["resolve", 2, {"counter": ["export", -1]}])
        await asyncio.gather(*values)
        client.sent()
        # Reading the counter's value takes a push of its own, while the limit is known here.
        client.main.f(known.limit, counter.counter.value)
        assert client.sent()[:3] == [
            ["push", ["pipeline", -1, ["value"]]],
            ["push", ["pipeline", 0, ["f"], [["promise", -1], ["promise", -2]]]],
            ["resolve", -1, 5],
        ]

    def test_a_message_that_cannot_be_sent_exports_nothing(self, client: BareSession) -> None:
        counter = Counter()
        with pytest.raises(EncodeError, match="object"):
            client.main.f(counter, counter, object())
        assert client.sent() == []
        assert client.session.stats().exports == 1

    def test_a_message_that_cannot_be_sent_takes_back_its_own_exports_only(self, client: BareSession) -> None:
        counter = Counter()
        with client.main.f(counter):
            with pytest.raises(EncodeError, match="object"):
                client.main.g(counter, counter, object())
            client.sent()
            client.feed(["release", -1, 1])
            assert client.session.closed is None
            assert client.session.stats().exports == 1


class TestReferencesPassedByThePeer:
    def test_a_callback_is_called_by_its_number(self, server: BareSession) -> None:
        assert server.exchange(call("callBack", args=[["export", -1], "hi"]), ["pull", 1]) == [
            ["push", ["pipeline", -1, [], ["hi"]]],
            ["release", -1, 1],
            ["resolve", 1, ["pipeline", 1]],
        ]

    def test_an_argument_is_released_when_the_call_has_returned(self, server: BareSession) -> None:
        server.feed(call("note", args=[["export", -1]]))
        assert server.sent() == []
        server.carry_out()
        assert server.sent() == [["release", -1, 1]]

    def test_an_argument_sent_twice_is_released_by_two(self, server: BareSession) -> None:
        assert server.exchange(call("note", args=[[[["export", -1], ["export", -1]]]])) == [
            ["release", -1, 2]
        ]

    def test_an_argument_that_was_kept_is_released_later_as_often_as_it_was_sent(
        self, server: BareSession, api: Api
    ) -> None:
        assert server.exchange(call("keep", args=[["export", -1]]), call("note", args=[["export", -1]])) == []
        not_none(api.kept).dispose()
        assert server.sent() == [["release", -1, 2]]

    def test_an_argument_of_a_call_that_is_refused_is_released(self, server: BareSession) -> None:
        answers = server.exchange(
            call("nowhere", args=[["export", -1]]), call("square", args=[["export", -2]])
        )
        assert answers == [["release", -1, 1], ["release", -2, 1]]

    def test_a_stub_may_arrive_again_after_it_was_released(self, server: BareSession) -> None:
        note = call("note", args=[["export", -1]])
        assert server.exchange(note, note) == [["release", -1, 1], ["release", -1, 1]]

    def test_a_promise_delays_the_call_until_its_value_is_there(self, server: BareSession, api: Api) -> None:
        server.exchange(call("note", args=[["promise", -1]]))
        assert api.log == []
        assert server.exchange(["resolve", -1, "now"]) == [["release", -1, 1]]
        assert api.log == ["now"]

    def test_a_promise_that_is_rejected_fails_the_call(self, server: BareSession, api: Api) -> None:
        server.exchange(
            call("note", args=[[[["promise", -1], ["promise", -2], ["export", -3]]]]), ["pull", 1]
        )
        answers = server.exchange(["reject", -2, ["error", "Error", "no"]])
        assert ["reject", 1, ["error", "Error", "no"]] in answers
        assert {message[1] for message in answers if message[0] == "release"} == {-1, -2, -3}
        assert api.log == []

    def test_the_value_of_a_promise_that_was_released_is_released_with_what_it_holds(
        self, server: BareSession
    ) -> None:
        answers = server.exchange(
            call("note", args=[[[["promise", -1], ["promise", -2]]]]),
            ["reject", -1, ["error", "Error", "no"]],
        )
        assert answers == [["release", -1, 1], ["release", -2, 1]]
        assert server.exchange(["resolve", -2, {"late": ["export", -3]}]) == [["release", -3, 1]]

    def test_a_promise_may_resolve_to_one_of_this_side(self, server: BareSession, api: Api) -> None:
        server.exchange(call("square", args=[5]), call("note", args=[["promise", -1]]))
        server.exchange(["resolve", -1, ["pipeline", 1]])
        assert api.log == [25]

    def test_a_promise_may_resolve_to_another_of_the_peers(self, server: BareSession, api: Api) -> None:
        server.exchange(call("note", args=[["promise", -1]]), ["resolve", -1, {"x": ["promise", -2]}])
        assert api.log == []
        server.exchange(["resolve", -2, "deep"])
        assert api.log == [{"x": "deep"}]


class TestResults:
    def test_the_import_is_released_as_soon_as_its_value_has_arrived(self, client: BareSession) -> None:
        promise = client.main.square(3)
        client.sent()
        client.feed(["resolve", 1, 9])
        assert client.sent() == [["release", 1, 1]]
        promise.dispose()
        assert client.sent() == []

    def test_a_target_in_a_result_is_exported_each_time_under_a_new_number(self, server: BareSession) -> None:
        assert server.exchange(
            call("sameCounter", args=[]), ["pull", 1], call("twoCounters", args=[]), ["pull", 2]
        ) == [
            ["resolve", 1, ["export", -1]],
            ["resolve", 2, [[["export", -2], ["export", -3]]]],
        ]

    def test_a_target_in_a_result_outlives_the_result_until_it_is_released_itself(
        self, server: BareSession, api: Api
    ) -> None:
        server.exchange(call("twoCounters", args=[]), ["pull", 1], ["release", 1, 1])
        assert api.counter.disposals == 0
        server.feed(["release", -1, 1], ["release", -2, 1])
        assert api.counter.disposals == 1

    def test_a_result_keeps_its_targets_for_calls_on_it(self, server: BareSession, api: Api) -> None:
        server.exchange(call("twoCounters", args=[]), ["pull", 1], ["release", -1, 1], ["release", -2, 1])
        assert server.exchange(["push", ["pipeline", 1, [0, "increment"], []]], ["pull", 2]) == [
            ["resolve", 2, 11]
        ]
        assert api.counter.disposals == 0
        server.feed(["release", 1, 1])
        assert api.counter.disposals == 1

    def test_a_result_that_nobody_asked_for_disposes_of_its_targets(
        self, server: BareSession, api: Api
    ) -> None:
        server.exchange(call("twoCounters", args=[]), ["release", 1, 1])
        assert api.counter.disposals == 1

    def test_a_promise_of_this_side_in_a_result_follows_it(self, server: BareSession) -> None:
        server.feed(call("callSquare", args=[["import", 0], 3]), ["pull", 1])
        server.carry_out()
        assert server.sent() == [["resolve", 1, {"result": ["promise", -1]}], ["resolve", -1, 9]]

    def test_a_promise_of_the_peer_in_a_result_is_named_by_its_number(self, server: BareSession) -> None:
        assert server.exchange(call("callSquare", args=[["export", -1], 3]), ["pull", 1]) == [
            ["push", ["pipeline", -1, ["square"], [3]]],
            ["resolve", 1, {"result": ["pipeline", 1]}],
            ["release", -1, 1],
        ]

    def test_a_result_that_is_a_promise_of_this_side_is_sent_as_its_value(self, server: BareSession) -> None:
        server.feed(call("incrementCounter", args=[["pipeline", 0, ["sameCounter"], []], 5]), ["pull", 1])
        server.carry_out()
        assert server.sent() == [["resolve", 1, 15]]

    async def test_a_call_to_this_very_side_delivers_the_promises_in_its_result(
        self, server: BareSession, api: Api
    ) -> None:
        server.exchange(call("keep", args=[["import", 0]]))
        value = await awaiting(not_none(api.kept).callSquare(api, 3))
        server.carry_out()
        assert await value == {"result": 9}

    async def test_a_target_in_the_result_of_such_a_call_is_a_stub_also_if_it_was_sent(
        self, server: BareSession, api: Api
    ) -> None:
        server.exchange(call("keep", args=[["import", 0]]))
        counters = not_none(api.kept).twoCounters()
        server.main.note(counters)
        value = await awaiting(counters)
        server.carry_out()
        assert [type(counter) for counter in await value] == [Stub, Stub]

    def test_a_stub_among_the_arguments_may_be_returned(self, server: BareSession) -> None:
        assert server.exchange(call("wrap", args=[["export", -1]]), ["pull", 1]) == [
            ["resolve", 1, {"value": ["import", -1], "list": [[["import", -1]]]}],
        ]
        assert server.exchange(["release", 1, 1]) == [["release", -1, 1]]

    def test_a_stub_in_a_result_that_nobody_asked_for_is_released_with_it(self, server: BareSession) -> None:
        assert server.exchange(call("wrap", args=[["export", -1]])) == []
        assert server.exchange(["release", 1, 1]) == [["release", -1, 1]]

    def test_a_disposed_stub_in_a_result_fails_that_call_alone(self, server: BareSession) -> None:
        server.feed(call("square", args=[1]), ["pull", 1])
        disposed = server.main.f()
        disposed.dispose()
        server.sent()
        server.asked()[0].resolve([disposed])
        assert server.sent() == [["reject", 1, ["error", "Error", "this stub has been disposed of"]]]
        assert server.exchange(call("square", args=[2]), ["pull", 2]) == [["resolve", 2, 4]]

    def test_a_result_that_cannot_be_sent_fails_that_call_and_exports_nothing(
        self, server: BareSession, api: Api
    ) -> None:
        assert server.exchange(call("unsendable", args=[]), ["pull", 1]) == [
            ["reject", 1, ["error", "TypeError", "a value of type object cannot be sent"]]
        ]
        assert server.session.stats().exports == 2
        server.feed(["release", 1, 1])
        assert api.counter.disposals == 1

    def test_a_result_that_holds_itself_fails_that_call_alone(self, server: BareSession, api: Api) -> None:
        endless: list[object] = [api.counter]
        endless.append(endless)
        error = ["error", "Error", "nested too deeply (does it hold itself?)"]
        server.feed(call("square", args=[1]), ["pull", 1], ["push", ["pipeline", 1, [1]]], ["pull", 2])
        (square,) = server.asked()
        square.resolve(endless)
        assert server.sent() == [["reject", 1, error], ["reject", 2, error]]
        server.feed(["release", 1, 1])
        assert server.session.closed is None
        assert api.counter.disposals == 1

    def test_nothing_is_returned_as_undefined_only_if_the_target_says_so(self, server: BareSession) -> None:
        server.feed(call("square", args=[1]), call("square", args=[1]), ["pull", 1], ["pull", 2])
        for value, pending in zip((None, UNDEFINED), server.asked(), strict=True):
            pending.resolve(value)
        assert server.sent() == [["resolve", 1, None], ["resolve", 2, ["undefined"]]]
