"""Functions that are recorded on one side and applied on the other."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from transcript import Api, BareSession, Counter, Pair, awaiting, call
from wire import FRESH

from rpcshare.rpc import (
    JSON,
    UNDEFINED,
    EncodeError,
    Limits,
    Promise,
    ReadableStream,
    RpcError,
    RpcTarget,
    Stub,
    rpc_method,
    stub,
)

# What is recorded


def recording_of(client: BareSession, function: Callable[[Promise, Stub, Promise], object]) -> list[Any]:
    """Return the message that has ``function`` applied, to the second result of a session."""
    api = client.main
    other, values = api.other(), api.list(7)
    mapped = values.map(lambda x: function(x, api, other))
    message = client.sent()[2]
    assert isinstance(message, list)
    mapped.dispose()
    return message


class TestARecording:
    def test_captures_once_what_it_uses_twice(self, client: BareSession) -> None:
        message = recording_of(client, lambda x, api, other: [api.nameOf(x), api.ageOf(x), other, other])
        assert message[1][3] == [["import", 0], ["import", 1]]  # a remap

    def test_of_a_capture_leaves_it_to_its_owner(self, client: BareSession) -> None:
        api = client.main
        other, values = api.other(), api.list(7)
        mapped = values.map(lambda x: other)
        assert client.sent()[2:] == [["push", ["remap", 2, [], [["import", 1]], [["pipeline", -1]]]]]
        other.dispose()
        assert client.sent() == [["release", 1, 1]]
        mapped.dispose()

    def test_may_be_made_within_another_that_is_applied_to_something_else(self, client: BareSession) -> None:
        api = client.main
        mapped = api.list().map(lambda x: api.list().map(lambda y: [x, y]))
        assert client.sent()[1:2] == [
            [
                "push",
                [
                    *("remap", 1, [], [["import", 0]]),
                    [
                        ["pipeline", -1, ["list"], []],
                        ["remap", 1, [], [["import", 0]], [[[["pipeline", -1], ["pipeline", 0]]]]],
                        ["pipeline", 2],
                    ],
                ],
            ]
        ]
        mapped.dispose()


class TestAMapperFunction:
    """It is recorded, so there is much that it cannot do. What it tried leaves no trace."""

    @staticmethod
    def refuse(
        function: Callable[[Promise], object], error: type[Exception], match: str | None = None
    ) -> None:
        client = BareSession()
        with client.main.list() as values, pytest.raises(error, match=match):
            values.map(function)
        assert client.sent() == [["push", ["pipeline", 0, ["list"], []]], ["release", 1, 1]]
        assert client.session.stats() == FRESH

    def test_cannot_be_async(self) -> None:
        async def function(x: Promise) -> object:
            return x

        self.refuse(function, TypeError, "cannot be async")

    def test_cannot_be_an_asynchronous_generator(self) -> None:
        async def function(x: Promise) -> object:
            yield x

        self.refuse(function, EncodeError, "cannot send a stream")

    @pytest.mark.parametrize(
        ("function", "match"),
        [
            (len, "has no len"),
            (list, "is not iterable"),
            (lambda x: x + 1, "unsupported operand"),
            (lambda x: x > 1, "not supported"),
            (int, "int"),
        ],
        ids=["length", "iteration", "arithmetic", "comparison", "conversion"],
    )
    def test_cannot_look_at_a_value(self, function: Callable[[Promise], object], match: str) -> None:
        self.refuse(function, TypeError, match)

    @pytest.mark.parametrize("made", [Counter(), print, object(), ReadableStream([])], ids=type)
    def test_cannot_return_or_pass_what_has_an_identity(self, made: object) -> None:
        self.refuse(lambda x: made, EncodeError)
        self.refuse(lambda x: x.take(made), EncodeError)
        self.refuse(lambda x: x.items.map(lambda y: y.take([made])), EncodeError)

    def test_that_raises_raises_to_the_caller(self) -> None:
        self.refuse(lambda x: 1 / 0, ZeroDivisionError)
        self.refuse(lambda x: x.items.map(lambda y: x / 0), TypeError)  # type: ignore[operator]

    def test_that_fails_lets_go_of_what_it_captured(self, client: BareSession) -> None:
        values, other = client.main.list(), client.main.other()
        client.sent()
        with pytest.raises(ZeroDivisionError):
            values.map(lambda x: [other.use(x), x.items.map(other.use), 1 / 0])
        with pytest.raises(TypeError):
            values.map(lambda x: x.items.map(lambda y: other.use(y) / 0))  # type: ignore[operator]
        other.dispose()
        assert client.sent() == [["release", 2, 1]]

    def test_cannot_be_gone_on_with_after_it_has_returned(self, client: BareSession) -> None:
        kept: list[Promise] = []
        values = client.main.list()
        mapped = values.map(lambda x: kept.append(x) or x.name())  # type: ignore[func-returns-value]
        before = json.dumps(client.sent())
        (x,) = kept
        for late in (
            x.name,
            lambda: x.items.map(lambda y: y),
            lambda: client.main.take(x),
            lambda: client.main.take(x.name),
            lambda: values.map(lambda y: [x, y]),
            x.name.dup,
        ):
            with pytest.raises(RpcError, match="a mapper function gets placeholders"):
                late()
        assert client.sent() == []
        assert '[["pipeline", 0, ["name"], []], ["pipeline", 1]]' in before
        mapped.dispose()

    async def test_cannot_have_its_placeholders_awaited(self, client: BareSession) -> None:
        kept: list[Promise] = []
        mapped = client.main.list().map(lambda x: kept.append(x) or x)  # type: ignore[func-returns-value]
        for each in (kept[0], kept[0].name):
            with pytest.raises(RpcError, match="a mapper function gets placeholders"):
                await each
        mapped.dispose()

    def test_does_not_concern_calls_outside_it(self, client: BareSession) -> None:
        values = client.main.list()
        mapped = values.map(lambda x: x)
        other = client.main.other()
        assert client.sent()[2] == ["push", ["pipeline", 0, ["other"], []]]
        mapped.dispose()
        other.dispose()


# What comes of it


class Library(RpcTarget):
    def __init__(self) -> None:
        self.counters = [Counter(1), Counter(2)]
        self.log: list[object] = []

    @rpc_method("books()")
    def books(self) -> object:
        return [
            {"title": "A", "pages": [1, 2], "author": {"id": 7}},
            {"title": "B", "pages": [], "author": {"id": 8}},
        ]

    @rpc_method("nothing()")
    def nothing(self) -> object:
        return None

    @rpc_method("undefined()")
    def undefined(self) -> object:
        return UNDEFINED

    @rpc_method("number()")
    def number(self) -> int:
        return 5

    @rpc_method("value(value)")
    def value(self, value: object) -> object:
        return value

    @rpc_method("list()")
    def list(self) -> list[Counter]:
        return self.counters

    @rpc_method("nameOf(id)")
    def name_of(self, number: int) -> str:
        self.log.append(number)
        return f"author {number}"

    @rpc_method("later(value)")
    async def later(self, value: object) -> object:
        return value

    @rpc_method("failFor(value, bad)")
    def fail_for(self, value: int, bad: int) -> int:
        if value == bad:
            raise RpcError(f"not {bad}", code="BAD")
        return value


async def outcome(pair: Pair, promise: Promise) -> object:
    waiting = await awaiting(promise)
    pair.settle()
    return await waiting


@pytest.fixture
def pair() -> Pair:
    return Pair(None, Library())


class TestApplying:
    async def test_takes_each_element_of_a_list(self, pair: Pair) -> None:
        main = pair.client.main
        mapped = main.books().map(
            lambda book: {"title": book.title, "author": main.nameOf(book.author.id), "as": [book]}
        )
        assert await outcome(pair, mapped) == [
            {"title": "A", "author": "author 7", "as": [await outcome(pair, main.books()[0])]},
            {"title": "B", "author": "author 8", "as": [await outcome(pair, main.books()[1])]},
        ]

    async def test_takes_what_is_no_list_as_one_element(self, pair: Pair) -> None:
        main = pair.client.main
        assert await outcome(pair, main.number().map(lambda x: [x, x])) == [5, 5]

    async def test_passes_on_null_and_undefined(self, pair: Pair) -> None:
        main = pair.client.main
        assert await outcome(pair, main.nothing().map(lambda x: 5)) is None
        assert await outcome(pair, main.undefined().map(lambda x: 5)) is UNDEFINED

    async def test_takes_an_empty_list_for_what_it_is(self, pair: Pair) -> None:
        assert await outcome(pair, pair.client.main.value([]).map(lambda x: x.deep.deeper)) == []

    async def test_takes_what_a_path_leads_to(self, pair: Pair) -> None:
        main = pair.client.main
        assert await outcome(pair, main.books()[0].pages.map(lambda page: {"page": page})) == [
            {"page": 1},
            {"page": 2},
        ]

    async def test_applies_maps_within_maps(self, pair: Pair) -> None:
        main = pair.client.main
        mapped = main.books().map(lambda book: book.pages.map(lambda page: [book.title, page]))
        assert await outcome(pair, mapped) == [[["A", 1], ["A", 2]], []]

    async def test_waits_for_what_the_calls_yield(self, pair: Pair) -> None:
        class Slow(RpcTarget):
            def __init__(self) -> None:
                self.turn = asyncio.Event()

            @rpc_method("list()")
            def list(self) -> list[int]:
                return [1, 2]

            @rpc_method("twice(i)")
            def twice(self, i: int) -> int:
                return 2 * i

        pair = Pair(None, Slow())
        main = pair.client.main
        mapped = main.list().map(lambda x: main.twice(main.twice(x)))
        assert await outcome(pair, mapped) == [4, 8]

    def test_sends_what_is_read_with_the_result_and_only_what_is_called_after_it(
        self, server: BareSession
    ) -> None:
        element = {"id": 2, "tags": [["a", "b"]]}
        function = [
            ["pipeline", -1, ["square"], [["pipeline", 0, ["id"]]]],
            ["remap", 0, ["tags"], [["import", 0]], [[[["pipeline", 0], ["pipeline", -1, ["id"]]]]]],
            {"id": ["pipeline", 0, ["id"]], "called": ["pipeline", 1], "mapped": ["pipeline", 2]},
        ]
        remap = ["push", ["remap", 1, [], [["import", 0]], function]]
        assert server.exchange(["push", [[element]]], remap, ["pull", 2]) == [
            ["resolve", 2, [[{"id": 2, "called": ["promise", -1], "mapped": [[[["a", 2]], [["b", 2]]]]}]]],
            ["resolve", -1, 4],
        ]

    async def test_maps_what_a_map_yields(self, pair: Pair) -> None:
        main = pair.client.main
        mapped = main.books().map(lambda book: book.author).map(lambda author: main.nameOf(author.id))
        assert await outcome(pair, mapped) == ["author 7", "author 8"]

    async def test_calls_targets_among_the_elements(self, pair: Pair) -> None:
        mapped = pair.client.main.list().map(lambda counter: counter.increment(10))
        assert await outcome(pair, mapped) == [11, 12]

    async def test_waits_for_promises_among_the_elements(self, pair: Pair) -> None:
        main = pair.client.main
        values = main.value([main.number(), main.books(), {"in": main.number()}])
        assert await outcome(pair, values.map(lambda x: [x])) == [
            [5],
            [await outcome(pair, main.books())],
            [{"in": 5}],
        ]

    async def test_of_a_function_of_the_caller_calls_back(self, pair: Pair) -> None:
        called: list[object] = []

        def note(value: object) -> int:
            called.append(value)
            return len(called)

        with stub(note) as callback:
            mapped = pair.client.main.books().map(lambda book: callback(book.title))
            assert await outcome(pair, mapped) == [1, 2]
        assert called == ["A", "B"]

    async def test_of_a_list_that_the_caller_has_sends_the_function_back(self, pair: Pair) -> None:
        main = pair.client.main
        with stub(lambda: [1, 2]) as callback:
            mapped = main.value(callback()).map(lambda x: [x, x])
            assert await outcome(pair, mapped) == [[1, 1], [2, 2]]

    async def test_fails_as_a_whole_if_one_call_fails(self, pair: Pair) -> None:
        main = pair.client.main
        with pytest.raises(RpcError, match="not 2") as caught:
            await outcome(pair, main.value([1, 2, 3]).map(lambda x: main.failFor(x, 2)))
        assert caught.value.code == "BAD"

    async def test_fails_if_what_is_mapped_failed(self, pair: Pair) -> None:
        main = pair.client.main
        with pytest.raises(RpcError, match="not 1"):
            await outcome(pair, main.failFor(1, 1).map(lambda x: x))

    async def test_fails_for_a_property_of_what_is_undefined(self, pair: Pair) -> None:
        with pytest.raises(RpcError, match="Cannot read properties of undefined"):
            await outcome(pair, pair.client.main.books().map(lambda book: book.missing.name))

    async def test_leaves_the_tables_as_they_were(self, pair: Pair) -> None:
        main = pair.client.main
        for _ in range(20):
            with stub(lambda value: value) as callback:
                mapped = [
                    main.books().map(lambda book: [book, main.nameOf(book.author.id)]),
                    main.books().map(lambda book: callback(book.title)),
                    main.list().map(lambda counter: {"counter": counter, "value": counter.value}),
                    main.list().map(lambda counter: main.list().map(lambda other: [counter, other])),
                    main.value([1, 2, 3]).map(lambda x: main.failFor(x, 2)),
                    main.value([callback, main]).map(lambda x: {"stub": x}),
                ]
                waiting = [await awaiting(each) for each in mapped]
                pair.settle()
                await asyncio.gather(*waiting, return_exceptions=True)
        del mapped, waiting
        await asyncio.sleep(0)  # the event loop holds the last of them for as long as its turn lasts
        pair.settle()
        assert pair.client.session.stats() == FRESH
        assert pair.server.session.stats() == FRESH


class TestAMapperFunctionFromThePeer:
    """It may be anything. What is wrong with it fails what it was to yield."""

    @pytest.mark.parametrize(
        ("instructions", "why"),
        [
            ([["pipeline", 1]], "a mapper function refers to 1, which it does not have"),
            ([["pipeline", 0], ["pipeline", 5]], "a mapper function refers to 5, which it does not have"),
            ([["pipeline", -1]], "a mapper function refers to -1, which it does not have"),
            ([["export", -5]], "a mapper function cannot export anything"),
            ([["promise", -5]], "a mapper function cannot export anything"),
            ([["readable", 0]], "a mapper function cannot read a stream"),
            ([["hello"]], "malformed or unknown expression: 'hello'"),
            ([["remap", 0, [], [["export", -5]], [5]]], "a mapper function cannot export anything"),
            ([["remap", 0, [], [["import", 3]], [5]]], "a mapper function refers to 3"),
        ],
        ids=str,
    )
    def test_may_be_wrong(self, instructions: list[object], why: str, server: BareSession) -> None:
        sent = server.exchange(["push", [[1, 2]]], ["push", ["remap", 1, [], [], instructions]], ["pull", 2])
        assert sent[0][:2] == ["reject", 2]
        assert why in sent[0][2][2]
        assert server.session.closed is None

    @pytest.mark.parametrize(
        "expression",
        [
            ["remap"],
            ["remap", 0, [], []],
            ["remap", "0", [], [], [5]],
            ["remap", 0, 5, [], [5]],
            ["remap", 0, [], {}, [5]],
            ["remap", 0, [], [], []],
            ["remap", 0, [], [], {}],
            ["remap", 0, [], [5], [5]],
            ["remap", 0, [], [["pipeline", 0]], [5]],
            ["remap", 7, [], [], [5]],
            ["remap", 0, [], [["import", 7]], [5]],
            ["remap", 0, [], [["export", -1], ["import", 7]], [5]],
            ["remap", 0, [], [], [5], 6],
        ],
        ids=str,
    )
    def test_must_be_well_formed(self, expression: list[object], server: BareSession) -> None:
        server.exchange(["push", expression])
        assert server.session.closed is not None

    def test_that_takes_too_many_steps_ends_its_session_alone(self, api: Api) -> None:
        bomb, other = (BareSession(api, limits=Limits(map_steps=1000)) for _ in range(2))
        deeper: list[object] = ["pipeline", 0]
        for _ in range(5):
            deeper = ["remap", -1, [], [["import", -1]], [deeper]]
        many = [["push", [list(range(50))]], ["push", ["remap", 1, [], [["import", 1]], [deeper]]]]
        assert bomb.exchange(*many) == [
            ["abort", ["error", "Error", "limit exceeded: map steps (at most 1,000)"]]
        ]
        assert bomb.session.stats().exports == 0
        assert other.exchange(call("square", args=[2]), ["pull", 1]) == [["resolve", 1, 4]]

    def test_shares_its_steps_with_the_others_of_its_message(self, api: Api) -> None:
        server = BareSession(api, limits=Limits(map_steps=1000))
        each: list[object] = ["remap", 1, [], [], [["pipeline", 0]]]
        server.feed(["push", [list(range(400))]], ["push", each], ["push", [[each, each]]])
        assert server.session.closed is None
        server.feed(["push", [[each, each, each]]])
        assert server.session.closed is not None

    def test_that_copies_too_much_ends_its_session(self, api: Api) -> None:
        server = BareSession(api, limits=Limits(map_steps=1000))
        long = {"list": [list(range(10_000))]}
        reads: list[object] = [["pipeline", 0, ["list"]]] * 100
        assert server.exchange(["push", long], ["push", ["remap", 1, [], [], reads]]) == [
            ["abort", ["error", "Error", "limit exceeded: map steps (at most 1,000)"]]
        ]
        server = BareSession(api, limits=Limits(map_steps=1000))
        literal: list[object] = [["bytes", "A" * 100_000]]
        assert server.exchange(["push", [list(range(100))]], ["push", ["remap", 1, [], [], literal]]) == [
            ["abort", ["error", "Error", "limit exceeded: map steps (at most 1,000)"]]
        ]

    def test_may_take_as_many_steps_as_it_likes_where_there_is_no_limit(self, api: Api) -> None:
        server = BareSession(api, limits=Limits(map_steps=0))
        messages = [["push", [list(range(5000))]], ["push", ["remap", 1, [], [], [["pipeline", 0]]]]]
        server.exchange(*messages)
        assert server.session.closed is None

    @pytest.mark.parametrize("depth", [50, 64, 65, 400])
    def test_may_be_nested_only_so_deep(self, depth: int, api: Api) -> None:
        server = BareSession(api)
        text = '["remap",0,[],[],[' * depth + '["pipeline",0]' + "]]" * depth
        message = f'["push",{text.replace("0", "1", 1)}]'
        server.feed(["push", 5])
        server.session.receive(JSON.decode(message))
        if depth <= 64:  # each counts for four
            assert server.exchange(["pull", 2]) == [["resolve", 2, 5]]
        else:
            why = "limit exceeded: nesting depth (at most 256)"
            assert server.sent() == [["abort", ["error", "Error", why]]]

    def test_that_makes_calls_is_bound_by_the_limit_on_calls(self, api: Api) -> None:
        server = BareSession(api, limits=Limits(calls_in_flight=10))
        calls = [["pipeline", -1, ["square"], [["pipeline", 0]]]]
        server.feed(["push", [list(range(20))]], ["push", ["remap", 1, [], [["import", 0]], calls]])
        assert server.session.closed is not None
        assert "calls in flight" in server.session.closed.message
