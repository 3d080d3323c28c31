"""Errors and groups of errors: what a method raises, and what its caller catches."""

import copy
import pickle
from typing import Any

import pytest
from transcript import BareSession, awaiting, call

from rpcshare.rpc import AggregateError, RpcError, Stub

INTERNAL = ["error", "Error", "Internal server error", None, {"code": "INTERNAL"}]


def raised(error: BaseException) -> Any:
    """Return what the caller of a method that raises ``error`` is sent."""

    def fail() -> None:
        raise error

    (answer,) = BareSession(fail).exchange(["push", ["pipeline", 0, [], []]], ["pull", 1])
    assert answer[:2] == ["reject", 1]
    return answer[2]


class TestAGroupThatAMethodRaises:
    def test_is_an_aggregate_error_of_its_errors(self) -> None:
        group = ExceptionGroup("both", [RpcError("a"), RpcError("b", name="TypeError", code="B")])
        assert raised(group) == [
            "error",
            "AggregateError",
            "both",
            None,
            {"errors": [[["error", "Error", "a"], ["error", "TypeError", "b", None, {"code": "B"}]]]},
        ]

    def test_conceals_what_is_internal_one_by_one_and_with_it_what_the_group_says(self) -> None:
        group = ExceptionGroup("with a detail", [RpcError("a"), ValueError("another")])
        errors = [[["error", "Error", "a"], INTERNAL]]
        assert raised(group) == [
            "error",
            "AggregateError",
            "several errors occurred",
            None,
            {"errors": errors},
        ]

    def test_may_hold_groups(self) -> None:
        group = ExceptionGroup("outer", [ExceptionGroup("inner", [RpcError("a")])])
        inner = ["error", "AggregateError", "inner", None, {"errors": [[["error", "Error", "a"]]]}]
        assert raised(group) == ["error", "AggregateError", "outer", None, {"errors": [[inner]]}]

    def test_that_is_an_aggregate_error_conceals_what_is_internal_in_it(self) -> None:
        error = AggregateError("both", [ValueError("a detail")])
        assert raised(error) == ["error", "AggregateError", "both", None, {"errors": [[INTERNAL]]}]


class TestAnErrorThatCannotBeSent:
    def test_gives_way_to_one_that_can(self) -> None:
        def fail() -> None:
            raise ValueError("a detail")

        def describe(error: BaseException) -> RpcError:
            raise KeyError(error)

        session = BareSession(fail, describe_error=describe)
        answers = session.exchange(["push", ["pipeline", 0, [], []]], ["pull", 1])
        assert answers == [["reject", 1, INTERNAL]]
        assert session.session.stats().calls_in_flight == 0

    def test_is_not_one_whose_message_is_another(self) -> None:
        error = RpcError(ValueError("said on purpose"))  # type: ignore[arg-type]  # as any exception may
        assert raised(error) == ["error", "Error", "said on purpose"]


class TestACause:
    def test_that_is_meant_for_the_peer_is_sent(self) -> None:
        error = RpcError("no")
        error.__cause__ = RpcError("why")
        assert raised(error) == ["error", "Error", "no", None, {"cause": ["error", "Error", "why"]}]

    def test_that_is_internal_is_not_even_mentioned(self) -> None:
        error = RpcError("no")
        error.__cause__ = ValueError("a detail")
        assert raised(error) == ["error", "Error", "no"]

    def test_that_leads_back_to_the_error_ends_somewhere(self) -> None:
        error, other = RpcError("a"), RpcError("b")
        error.__cause__, other.__cause__ = other, error
        expression = raised(error)
        depth = 0
        while len(expression) > 3:
            expression = expression[4]["cause"]
            depth += 1
        assert depth == 255


class TestAnAggregateError:
    async def test_is_caught_as_a_group_by_whoever_called(self, client: BareSession) -> None:
        promise = await awaiting(client.main.f())
        errors = [[["error", "Error", "a"], ["error", "RangeError", "b"]]]
        client.feed(["reject", 1, ["error", "AggregateError", "both", None, {"errors": errors, "n": 1}]])
        caught: list[Any] = []
        try:
            await promise
        except* RpcError as group:
            caught.extend(group.exceptions)
        assert [error.message for error in caught] == ["a", "b"]

    def test_is_an_rpc_error_with_properties(self) -> None:
        error = AggregateError("both", [RpcError("a")], code="X", properties={"n": 1})
        assert isinstance(error, RpcError)
        assert (error.name, error.message, error.code) == ("AggregateError", "both", "X")
        assert error.properties == {"n": 1, "code": "X"}
        assert str(error) == "AggregateError: both"

    def test_keeps_what_it_says_when_it_is_split(self) -> None:
        error = AggregateError("both", [RpcError("a"), ValueError("b")], code="X")
        matched, rest = error.split(ValueError)
        assert [type(part) for part in (matched, rest)] == [AggregateError, AggregateError]
        assert isinstance(matched, AggregateError)
        assert isinstance(rest, AggregateError)
        assert (matched.message, matched.code, str(matched.exceptions[0])) == ("both", "X", "b")
        assert [str(inner) for inner in rest.exceptions] == ["a"]

    @pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
    def test_can_be_copied(self, duplicate) -> None:
        error = duplicate(AggregateError("both", [RpcError("a")], code="X"))
        assert (error.message, error.code, error.exceptions[0].message) == ("both", "X", "a")

    def test_holds_an_error_at_least(self) -> None:
        with pytest.raises(ValueError, match="non-empty"):
            AggregateError("none", [])


def test_a_property_that_cannot_be_sent_is_left_out_with_all_that_it_would_have_exported() -> None:
    def fail() -> object:
        return RpcError("no", properties={"bad": [print, object()], "good": 1})

    server = BareSession(fail)
    answers = server.exchange(["push", ["pipeline", 0, [], []]], ["pull", 1])
    assert answers == [["resolve", 1, ["error", "Error", "no", None, {"good": 1}]]]
    server.exchange(["release", 1, 1])
    assert server.session.stats() == BareSession(fail).session.stats()


def test_stubs_in_a_cause_are_the_receivers() -> None:
    seen: list[Stub] = []

    def note(error: RpcError) -> None:
        assert isinstance(error.__cause__, RpcError)
        given = error.__cause__.properties["stub"]
        assert isinstance(given, Stub)
        seen.append(given.dup())

    server = BareSession(note)
    cause = ["error", "Error", "why", None, {"stub": ["export", -1]}]
    server.exchange(call(args=[["error", "Error", "no", None, {"cause": cause}]]))
    _promise = seen[0]()
    assert server.sent() == [["push", ["pipeline", -1, [], []]]]
