"""Which expression stands for which value, and back (PROTOCOL.md, "Expressions").

tests/interop/test_values_agree.py holds the same against what npm capnweb prints.
"""

import json
import math
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transcript import BareSession

from rpcshare.rpc import JSON, UNDEFINED, BigInt, Date, EncodeError, Preencoded, RpcError
from rpcshare.rpc.encoding import Encoder

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEYOND = 2**53  # the first integer from which JavaScript's numbers are not exact

# Both directions: what is sent for the value is what the value is received as.
BOTH_WAYS = {
    "null": (None, "null"),
    "true": (True, "true"),
    "false": (False, "false"),
    "zero": (0, "0"),
    "a fraction": (1.5, "1.5"),
    "the largest exact integer": (BEYOND - 1, "9007199254740991"),
    "the smallest exact integer": (1 - BEYOND, "-9007199254740991"),
    "text": ("hello", '"hello"'),
    "empty text": ("", '""'),
    "text beyond the basic plane": ("😀", '"😀"'),
    "half of a surrogate pair": ("\ud83d", '"\\ud83d"'),
    "text that looks like a kind": ("export", '"export"'),
    "an empty array": ([], "[[]]"),
    "an array": ([1, "a", None], '[[1,"a",null]]'),
    "an array in an array": ([[1]], "[[[[1]]]]"),
    "an array that looks like an expression": (["export", -1], '[["export",-1]]'),
    "an empty object": ({}, "{}"),
    "an object": ({"a": 1, "b": [2]}, '{"a":1,"b":[[2]]}'),
    "an object with odd keys": ({"": 1, "__proto__": 2, "1": 3}, '{"":1,"__proto__":2,"1":3}'),
    "an object with half of a surrogate pair": ({"\ude00": [1]}, '{"\\ude00":[[1]]}'),
    "undefined": (UNDEFINED, '["undefined"]'),
    "infinity": (math.inf, '["inf"]'),
    "minus infinity": (-math.inf, '["-inf"]'),
    "a bigint": (BigInt(5), '["bigint","5"]'),
    "a negative bigint": (BigInt(-5), '["bigint","-5"]'),
    "a bigint of more digits than Python prints": (BigInt(10**16_383), '["bigint","1' + "0" * 16_383 + '"]'),
    "no bytes": (b"", '["bytes",""]'),
    "bytes": (b"\x00\xff\xfe~", '["bytes","AP/+fg"]'),
    "a date": (datetime(2025, 6, 8, 1, 2, 50, 815_000, tzinfo=UTC), '["date",1749344570815]'),
    "a date before the epoch": (EPOCH - timedelta(milliseconds=1), '["date",-1]'),
    "a date of microseconds": (EPOCH + timedelta(seconds=1, microseconds=1), '["date",1000.001]'),
    "an invalid date": (Date(None), '["date",null]'),
    "a date that datetime cannot hold": (Date(8.64e15), '["date",8640000000000000.0]'),
}

# One direction: Python has more kinds than the wire.
SENT_AS = {
    "a tuple": ((1, 2), "[[1,2]]"),
    "a named tuple": (namedtuple("Point", "x y")(1, 2), "[[1,2]]"),
    "an ordered dict": (OrderedDict(a=1), '{"a":1}'),
    "a default dict": (defaultdict(list, a=[1]), '{"a":[[1]]}'),
    "a member of a StrEnum": (StrEnum("Color", {"RED": "red"}).RED, '"red"'),
    "a member of an IntEnum": (IntEnum("Level", {"HIGH": 3}).HIGH, "3"),
    "a member of an Enum": (Enum("Point", {"ORIGIN": (0, 0)}).ORIGIN, "[[0,0]]"),
    "a key that is a member of a StrEnum": ({StrEnum("Key", {"A": "a"}).A: [1]}, '{"a":[[1]]}'),
    "a subclass of str": (type("Name", (str,), {})("x"), '"x"'),
    "a subclass of int": (type("Count", (int,), {})(3), "3"),
    "a subclass of float": (type("Ratio", (float,), {})(0.5), "0.5"),
    "a large subclass of int": (type("Count", (int,), {})(BEYOND), '["bigint","9007199254740992"]'),
    "an infinite subclass of float": (type("Ratio", (float,), {})(math.inf), '["inf"]'),
    "a bytearray": (bytearray(b"a"), '["bytes","YQ"]'),
    "every other byte of a memoryview": (memoryview(b"a-b-")[::2], '["bytes","YWI"]'),
    "an integer that JavaScript's numbers cannot tell from the next": (
        BEYOND,
        '["bigint","9007199254740992"]',
    ),
    "a negative one": (-BEYOND, '["bigint","-9007199254740992"]'),
    "minus zero": (-0.0, "-0.0"),
    "not a number": (math.nan, '["nan"]'),
    "a date elsewhere": (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), '["date",0]'),
    "the first date, east of Greenwich": (
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))),
        '["date",-62135614800000]',
    ),
    "an error": (RpcError("no"), '["error","Error","no"]'),
    "an error with more to say": (
        RpcError("no", name="TypeError", properties={"code": "X", "list": [1]}),
        '["error","TypeError","no",null,{"code":"X","list":[[1]]}]',
    ),
    "an error with a stack": (RpcError("no", stack="at home"), '["error","Error","no"]'),
}

RECEIVED_AS = {
    "an integer that is no bigint": ("9007199254740993", 9007199254740992.0),
    "a large number without an exponent": ("100000000000000000000", 1e20),
    "a number that JavaScript reads as infinite": ("1" + "0" * 400, math.inf),
    "another": ("-1e999", -math.inf),
    "large numbers within": ('{"a":[[10000000000000000]],"b":-10000000000000000}', {"a": [1e16], "b": -1e16}),
    "bytes with padding": ('["bytes","YQ=="]', b"a"),
    "the bytes of an ArrayBuffer": ('["bytes","YQ","ArrayBuffer"]', b"a"),
    "the bytes of a Float64Array": ('["bytes","AAAAAAAA8D8","Float64Array"]', b"\0\0\0\0\0\0\xf0\x3f"),
    "a date beyond what JavaScript has": ('["date",8640000000000001]', Date(None)),
    "a date of infinitely many milliseconds": ('["date",1e999]', Date(None)),
    "a date of more digits than a float has": ('["date",1' + "0" * 400 + "]", Date(None)),
    "a date east of the last": ('["date",253402300800000]', Date(253402300800000)),
    "inf with company": ('["inf",1]', math.inf),
}

UNSENDABLE = {
    "an object": object(),
    "a class": dict,
    "a set": {1},
    "a complex number": 1j,
    "a decimal": Decimal(1),
    "a day": date(2025, 1, 1),
    "a time span": timedelta(1),
    "a UUID": UUID(int=0),
    "a generator": (n for n in ()),
    "a key that is a number": {1: 2},
    "a key that is nothing": {None: 1},
    "a date that no clock has shown": datetime.min,
}


def expression_of(value: object) -> str:
    encoder = Encoder(None, max_depth=256, raw_bytes=False)
    return JSON.encode(encoder.encode(value)).decode()


def received(text: str) -> object:
    """Return the value that a peer finds as the result of a call, if this is its expression."""
    values: list[object] = []
    session = BareSession(values.append)
    session.session.receive(JSON.decode('["push",["pipeline",0,[],[' + text + "]]]"))
    session.carry_out()
    assert session.session.closed is None
    return values[0]


def cases(table: dict[str, tuple[object, ...]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("given", "expected"), table.values(), ids=table.keys())


class TestSent:
    @cases(BOTH_WAYS | SENT_AS)
    def test_a_value_has_this_expression(self, given: object, expected: str) -> None:
        assert expression_of(given) == expected

    @pytest.mark.parametrize("value", UNSENDABLE.values(), ids=UNSENDABLE.keys())
    def test_what_the_wire_has_no_form_for_is_refused_and_nothing_is_sent(self, value: object) -> None:
        client = BareSession()
        with pytest.raises(EncodeError, match="cannot be sent"):
            client.main.f(print, [{"deep": value}])
        assert client.sent() == []
        assert client.session.stats() == BareSession().session.stats()

    def test_a_value_that_holds_itself_is_refused(self) -> None:
        endless: dict[str, object] = {}
        endless["endless"] = [endless]
        with pytest.raises(EncodeError, match="does it hold itself"):
            BareSession().main.f(endless)

    def test_what_is_sent_is_left_as_it_was(self) -> None:
        value = {"a": [1, (2,)], "b": {"c": [b"x"]}, "d": math.nan}
        copy = {"a": [1, (2,)], "b": {"c": [b"x"]}, "d": value["d"]}
        expression_of(value)
        assert value == copy

    def test_what_is_changed_after_the_call_is_sent_as_it_was(self) -> None:
        client = BareSession()
        part = {"id": "prt_1", "time": {"start": 1}, "tags": ["a"]}
        client.main.f(part)
        part["id"] = "prt_2"
        part["time"]["end"] = 2
        part["tags"].append("b")
        sent = {"id": "prt_1", "time": {"start": 1}, "tags": [["a"]]}
        assert client.sent()[0] == ["push", ["pipeline", 0, ["f"], [sent]]]


class TestReceived:
    @pytest.mark.parametrize(("expected", "text"), list(BOTH_WAYS.values()), ids=BOTH_WAYS.keys())
    def test_an_expression_has_this_value(self, text: str, expected: object) -> None:
        value = received(text)
        assert value == expected
        assert type(value) is type(expected)

    @cases(RECEIVED_AS)
    def test_an_expression_of_another_peer_has_this_value(self, given: str, expected: object) -> None:
        value = received(given)
        assert value == expected
        assert type(value) is type(expected)

    def test_nan_is_received(self) -> None:
        assert math.isnan(received('["nan"]'))

    def test_an_error_has_the_properties_it_was_sent_with(self) -> None:
        error = received('["error","RangeError","no","at x",{"list":[[1,["undefined"]]]}]')
        assert isinstance(error, RpcError)
        assert (error.name, error.message, error.stack) == ("RangeError", "no", "at x")
        assert error.properties == {"list": [1, UNDEFINED]}

    def test_a_key_sent_twice_has_its_last_value(self) -> None:
        assert received('{"a":1,"a":2}') == {"a": 2}


class TestPreencoded:
    """One value for many peers: encoded once, then spliced into each message."""

    def test_it_stands_for_its_value(self) -> None:
        client = BareSession()
        client.main.f({"event": Preencoded({"data": [1, UNDEFINED]})})
        assert client.sent()[0] == [
            "push",
            ["pipeline", 0, ["f"], [{"event": {"data": [[1, ["undefined"]]]}}]],
        ]

    def test_it_is_encoded_once(self) -> None:
        event = Preencoded([1])
        JSON.encode([event])
        event.expression = "encoded again"
        assert JSON.encode([event]) == b"[[[1]]]"

    @pytest.mark.parametrize("text", ["\ud800", "plain"])
    @pytest.mark.parametrize("around", ["\udc00", "plain"])
    def test_it_may_hold_and_be_among_halves_of_surrogate_pairs(self, text: str, around: str) -> None:
        assert json.loads(JSON.encode([around, Preencoded({"a": text})])) == [around, {"a": text}]

    def test_it_holds_no_references(self) -> None:
        with pytest.raises(EncodeError, match="cannot be sent"):
            Preencoded([print])


def paired(text: str) -> str:
    """Return ``text`` with the halves of a surrogate pair as the one character that JSON makes of them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


texts = st.text(st.characters()).map(paired)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=1 - BEYOND, max_value=BEYOND - 1)
    | st.integers().map(BigInt)
    | st.floats()
    | texts
    | st.binary()
    | st.just(UNDEFINED)
    | st.sampled_from(["export", "import", "pipeline", "error", "undefined", "nan"])
    # A number of milliseconds tells microseconds apart for about a century and a half around the epoch.
    | st.integers(-(2**51), 2**51).map(lambda microseconds: EPOCH + timedelta(microseconds=microseconds))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_whatever_is_sent_is_received(value: object) -> None:
    # By repr(), because 1, 1.0, True and BigInt(1) are equal, and nan is to be equal to itself.
    assert repr(received(expression_of(value))) == repr(value)


@settings(max_examples=200, deadline=None)
@given(values)
def test_whatever_is_received_can_be_sent_back(value: object) -> None:
    expression = expression_of(value)
    assert expression_of(received(expression)) == expression
