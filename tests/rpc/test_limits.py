"""What a peer may ask of a session, and what becomes of one that asks for more."""

import json
from collections.abc import Callable

import pytest
from transcript import Api, BareSession, call

from rpcshare.rpc import (
    JSON,
    Connection,
    LimitExceededError,
    Limits,
    memory_pair,
)


def nested(levels: int) -> list[object]:
    """Return the expression of an empty array in so many arrays less one."""
    expression: list[object] = [[]]
    for _ in range(levels - 1):
        expression = [[expression]]
    return expression


def nested_objects(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def depth(levels: int, of: Callable[[int], object] = nested) -> list[list[object]]:
    # The list of arguments is a level too.
    return [call("note", args=[of(levels - 1)])]


def object_depth(levels: int) -> list[list[object]]:
    return depth(levels, of=nested_objects)


def bigint_digits(count: int) -> list[list[object]]:
    return [call("note", args=[["bigint", "-" + "9" * count]])]


def exports(count: int) -> list[list[object]]:
    # The main object is one.
    return [["push", None]] * (count - 1)


def calls_in_flight(count: int) -> list[list[object]]:
    return [call("note", args=[0])] * count


# Each makes the messages that take exactly as much of one limit as it is asked for.
TAKING = {
    "depth": (depth, "nesting depth"),
    "depth of objects": (object_depth, "nesting depth"),
    "bigint_digits": (bigint_digits, "digits of a bigint"),
    "exports": (exports, "exports held by the peer"),
    "calls_in_flight": (calls_in_flight, "calls in flight"),
}

limits = pytest.mark.parametrize(
    ("limit", "taking", "name"),
    [(key.split()[0], taking, name) for key, (taking, name) in TAKING.items()],
    ids=TAKING.keys(),
)


class TestEachLimit:
    @limits
    def test_may_be_taken_in_full(self, limit: str, taking: Callable[..., list[object]], name: str) -> None:
        server = BareSession(Api(), limits=Limits(**{limit: 5}))
        server.feed(*taking(5))
        assert server.session.closed is None

    @limits
    def test_ends_the_session_of_whoever_takes_more(
        self, limit: str, taking: Callable[..., list[object]], name: str
    ) -> None:
        server = BareSession(Api(), limits=Limits(**{limit: 5}))
        server.feed(*taking(6))
        assert server.sent() == [["abort", ["error", "Error", f"limit exceeded: {name} (at most 5)"]]]
        closed = server.session.closed
        assert isinstance(closed, LimitExceededError)
        assert (closed.limit, closed.bound) == (name, 5)

    @limits
    def test_is_off_when_it_is_zero(self, limit: str, taking: Callable[..., list[object]], name: str) -> None:
        server = BareSession(Api(), limits=Limits(**{limit: 0}))
        server.feed(*taking(getattr(Limits(), limit) + 1))
        assert server.session.closed is None

    @limits
    def test_is_on_by_default(self, limit: str, taking: Callable[..., list[object]], name: str) -> None:
        server = BareSession(Api())
        server.feed(*taking(getattr(Limits(), limit) + 1))
        assert isinstance(server.session.closed, LimitExceededError)

    @limits
    def test_is_of_one_session_and_no_other(
        self, limit: str, taking: Callable[..., list[object]], name: str
    ) -> None:
        api = Api()
        greedy, modest = (BareSession(api, limits=Limits(**{limit: 5})) for _ in range(2))
        greedy.feed(*taking(6))
        assert modest.exchange(call("square", args=[3]), ["pull", 1]) == [["resolve", 1, 9]]


class TestWhatCounts:
    def test_a_call_that_has_returned_is_not_in_flight(self) -> None:
        server = BareSession(Api(), limits=Limits(calls_in_flight=2))
        server.exchange(*calls_in_flight(20))
        assert server.session.closed is None
        assert server.session.stats().calls_in_flight == 0

    def test_a_call_that_failed_is_not_in_flight(self) -> None:
        server = BareSession(Api(), limits=Limits(calls_in_flight=2))
        server.exchange(*[call("fail", args=["no"])] * 20)
        assert server.session.stats().calls_in_flight == 0

    def test_an_export_that_was_released_is_not_held(self) -> None:
        server = BareSession(Api(), limits=Limits(exports=3))
        for number in range(1, 20):
            server.exchange(["push", None], ["release", number, 1])
        assert server.session.closed is None

    def test_a_stub_that_was_sent_to_the_peer_is_held_by_it(self) -> None:
        server = BareSession(Api(), limits=Limits(exports=3))
        server.exchange(call("sameCounter", args=[]), ["pull", 1])
        server.feed(["push", None])
        assert isinstance(server.session.closed, LimitExceededError)

    def test_calls_that_were_asked_for_together_with_one_too_many_do_not_begin(self) -> None:
        api = Api()
        server = BareSession(api, limits=Limits(calls_in_flight=2))
        server.feed(*calls_in_flight(3))
        server.carry_out()
        assert api.log == []

    def test_a_sign_is_no_digit(self) -> None:
        server = BareSession(Api(), limits=Limits(bigint_digits=2))
        server.feed(call("note", args=[["bigint", "-99"]]))
        assert server.session.closed is None

    def test_depth_is_that_of_the_whole_message(self) -> None:
        server = BareSession(Api(), limits=Limits(depth=5))
        server.feed(call("note", args=[["pipeline", 0, ["note"], [["pipeline", 0, ["note"], [nested(3)]]]]]))
        assert isinstance(server.session.closed, LimitExceededError)

    @pytest.mark.parametrize("bound", [256, 0])
    def test_calls_within_calls_are_no_way_around_it(self, bound: int) -> None:
        expression: list[object] = ["pipeline", 0, ["note"], [0]]
        for _ in range(5_000):
            expression = ["pipeline", 0, ["note"], [expression]]
        server = BareSession(Api(), limits=Limits(depth=bound))
        server.session.receive(["push", expression])
        assert isinstance(server.session.closed, LimitExceededError)

    def test_values_that_are_sent_keep_to_the_depth_that_npm_capnweb_receives(self) -> None:
        client = BareSession()
        client.main.f(JSON.decode("[" * 254 + "1" + "]" * 254))
        with pytest.raises(TypeError, match="nested too deeply"):
            client.main.f(JSON.decode("[" * 255 + "1" + "]" * 255))

    def test_depth_has_a_bound_of_its_own_where_none_is_set(self) -> None:
        server = BareSession(Api(), limits=Limits(depth=0))
        server.session.receive(depth(1001)[0])
        assert isinstance(server.session.closed, LimitExceededError)

    async def test_a_message_counts_in_bytes_as_it_arrives(self) -> None:
        near, far = memory_pair()
        text = "é" * 50  # 100 bytes
        message = JSON.encode(["push", text])
        async with Connection(near, Api(), limits=Limits(message_bytes=len(message))) as connection:
            await far.send(message, text=True)
            await far.send(JSON.encode(["pull", 1]), text=True)
            assert JSON.decode(await far.receive()) == ["resolve", 1, text]
            await far.send(JSON.encode(["push", text + "x"]), text=True)
            assert (
                json.loads(await far.receive())[1][2]
                == f"limit exceeded: message bytes (at most {len(message)})"
            )
            assert isinstance(connection.session.closed, LimitExceededError)

    async def test_a_message_of_any_length_may_arrive_if_that_is_off(self) -> None:
        near, far = memory_pair()
        async with Connection(near, limits=Limits(message_bytes=0)):
            await far.send(JSON.encode(["push", "x" * (Limits().message_bytes + 1)]), text=True)
            await far.send(JSON.encode(["pull", 1]), text=True)
            assert len(await far.receive()) > Limits().message_bytes
