"""What breaks the rules of the protocol ends the session of whoever sent it, and does nothing else."""

import copy
import random
from typing import Any

import pytest
from transcript import Api, BareSession, Counter, awaiting, call

from rpcshare.rpc import JSON, ProtocolError, SessionClosedError


def pushed(*expressions: object) -> list[object]:
    """Return messages that hold each expression where a value is expected."""
    return [["push", expression] for expression in expressions]


MALFORMED = [
    # What is no message.
    None,
    True,
    5,
    "push",
    {},
    {"0": "push", "1": 5},
    [],
    [[]],
    [None],
    [0, 1],
    [{}],
    [["push"], 5],
    ["unknown"],
    ["Push", 5],
    ["push "],
    # Messages with too little, too much or the wrong thing in them.
    ["push"],
    ["push", 1, 2],
    ["pull"],
    ["pull", 0, 0],
    ["pull", None],
    ["pull", "0"],
    ["pull", True],
    ["pull", 0.0],
    ["pull", [0]],
    ["resolve"],
    ["resolve", 1],
    ["resolve", "1", 5],
    ["resolve", None, 5],
    ["resolve", 1, 2, 3],
    ["reject"],
    ["reject", 1],
    ["reject", {}, 5],
    ["release"],
    ["release", 0],
    ["release", 0, "1"],
    ["release", 0, 0.5],
    ["release", 0, None],
    ["release", 0, 1, 1],
    ["release", True, 1],
    ["abort"],
    ["abort", 1, 2],
    ["stream"],
    ["pipe", 1, 2],
    # Numbers that stand for nothing, or for something else.
    ["pull", 1],
    ["pull", -1],
    ["resolve", 0, 5],
    ["reject", 0, 5],
    ["release", 1, 1],
    ["release", -1, 1],
    ["release", 0, 0],
    ["release", 0, -1],
    ["release", 0, 2],
    ["release", 0, 10**30],
    # Expressions.
    *pushed(
        [],
        [None],
        [5],
        [{}],
        ["nothing"],
        ["nothing", 1, 2],
        [[1], 2],
        [[], []],
        {"deep": [[["nothing"]]]},
        ["undefined", 1],
        ["bigint"],
        ["bigint", 5],
        ["bigint", None],
        ["bigint", ""],
        ["bigint", "-"],
        ["bigint", "--1"],
        ["bigint", "+1"],
        ["bigint", " 1"],
        ["bigint", "1.5"],
        ["bigint", "1e5"],
        ["bigint", "1_000"],
        ["bigint", "0x1f"],
        ["bigint", "٣"],
        ["bigint", "5", "6"],
        ["date"],
        ["date", "2025-01-01"],
        ["date", True],
        ["date", {}],
        ["date", ["nan"]],
        ["date", 1, 2],
        ["bytes"],
        ["bytes", None],
        ["bytes", 5],
        ["bytes", "A"],
        ["bytes", "****"],
        ["bytes", "YQ==YQ=="],
        ["bytes", "é"],
        ["bytes", "YQ", "Int7Array"],
        ["bytes", "YQ", []],
        ["bytes", "YQ", "Int8Array", 1],
        ["error"],
        ["error", "Error"],
        ["error", 5, "no"],
        ["error", "Error", 5],
        ["error", "Error", "no", None, None],
        ["error", "Error", "no", None, "more"],
        ["error", "Error", "no", None, [[]]],
        ["error", "Error", "no", None, {"cause": ["nothing"]}],
        ["export"],
        ["export", "-1"],
        ["export", -1.0],
        ["export", False],
        ["export", 0],
        ["export", 1],
        ["export", -1, []],
        ["promise"],
        ["promise", None],
        ["promise", 0],
        ["promise", 1],
        [[["promise", -1], ["promise", -1]]],
        ["import"],
        ["import", "0"],
        ["import", 9],
        ["import", -1],
        ["import", 0, "path"],
        ["import", 0, {}],
        ["import", 0, [None]],
        ["import", 0, [1.5]],
        ["import", 0, [True]],
        ["import", 0, [["path"]]],
        ["import", 0, [], {}],
        ["import", 0, [], None],
        ["import", 0, [], [], []],
        ["pipeline"],
        ["pipeline", None],
        ["pipeline", 1],
        ["pipeline", 0, ["note"], "arguments"],
        ["pipeline", 0, ["note"], [["nothing"]]],
        ["pipeline", 0, ["note"], [["export", -1], ["nothing"]]],
        ["remap"],
        ["remap", 0],
        ["remap", 0, [], [], {}],
        ["readable"],
        ["readable", 0],
        ["writable"],
        ["writable", "x"],
        ["blob"],
        ["blob", 5, 5],
    ),
    ["resolve", 1, ["nothing"]],
    ["reject", 1, ["nothing"]],
    ["abort", ["nothing"]],
]


@pytest.mark.parametrize("message", MALFORMED, ids=lambda message: JSON.encode(message).decode())
class TestAMalformedMessage:
    def test_ends_the_session_with_an_abort(self, message: object) -> None:
        server = BareSession(Api())
        server.feed(message)
        assert isinstance(server.session.closed, ProtocolError)
        *released, (last, error) = server.sent()
        assert (last, error[0]) == ("abort", "error")
        assert all(kind == "release" for kind, *_ in released)

    async def test_fails_the_calls_under_way_and_those_that_follow(self, message: object) -> None:
        server = BareSession(Api())
        before = await awaiting(server.main.f())
        server.feed(message)
        for promise in (before, server.main.f(Counter()), server.main.f.g):
            with pytest.raises(SessionClosedError):
                await promise


class TestAProtocolError:
    def test_says_nothing_of_what_the_message_held(self) -> None:
        server = BareSession(Api())
        server.feed(["push", ["bytes", "the secret of a share"]])
        assert "secret" not in str(server.session.closed)

    def test_lets_go_of_the_references_that_the_message_brought(self) -> None:
        server = BareSession(Api())
        server.feed(call("note", args=[["export", -1], ["nothing"]]))
        assert server.session.stats().imports == 0


class TestMutatedMessages:
    """Whatever arrives, ``receive`` raises nothing, and what is to be sent can be."""

    CONVERSATION = (
        call("square", args=[3]),
        ["pull", 1],
        call("callSquare", args=[["import", 0], 4]),
        ["pull", 2],
        call("callBack", args=[["export", -1], {"a": [[1, ["date", 5], ["bigint", "7"]]]}]),
        call("makeCounter", args=[5]),
        ["push", ["pipeline", 4, ["increment"], [["pipeline", 1]]]],
        ["pull", 5],
        call("note", args=[["promise", -2], ["error", "Error", "no", None, {"x": ["bytes", "YQ"]}]]),
        ["resolve", -2, {"value": ["export", -3]}],
        ["reject", 1, ["error", "TypeError", "no"]],
        call("twoCounters", args=[]),
        ["pull", 7],
        ["release", 1, 1],
        ["release", -1, 1],
    )
    JUNK: tuple[object, ...] = (
        None,
        True,
        -1,
        0,
        1,
        2,
        5,
        1.5,
        10**40,
        "",
        "export",
        "pipeline",
        "promise",
        "push",
        [],
        [[]],
        {},
        ["nan"],
    )

    def mutated(self, message: list[Any], chance: random.Random) -> object:
        """Return the message with one thing in it replaced, doubled, moved or gone."""
        message = copy.deepcopy(message)
        containers: list[list[object] | dict[str, object]] = []

        def collect(value: object) -> None:
            if isinstance(value, list | dict) and value:
                containers.append(value)
                for item in value.values() if isinstance(value, dict) else value:
                    collect(item)

        collect(message)
        container: Any = chance.choice(containers)
        key = chance.choice(list(container) if isinstance(container, dict) else range(len(container)))
        what = chance.randrange(4)
        if what == 0 or isinstance(container, dict):
            container[key] = copy.deepcopy(chance.choice(self.JUNK))
        elif what == 1:
            container.insert(key, copy.deepcopy(container[key]))
        elif what == 2:
            container.append(container.pop(key))
        else:
            del container[key]
        return message

    @pytest.mark.parametrize("seed", range(10))
    def test_do_no_harm(self, seed: int) -> None:
        chance = random.Random(seed)
        ended = 0
        for _ in range(60):
            server = BareSession(Api())
            for message in self.CONVERSATION:
                server.exchange(self.mutated(message, chance) if chance.random() < 0.15 else message)
            ended += server.session.closed is not None
            server.session.close(SessionClosedError("over"))
            server.carry_out()
            server.sent()
            stats = server.session.stats()
            assert (stats.imports, stats.exports, stats.calls_in_flight) == (0, 0, 0)
        assert 0 < ended < 60
