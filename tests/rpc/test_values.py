"""Which expression stands for which value, and back (PROTOCOL.md, "Expressions").

tests/interop/test_values_agree.py holds the same against what npm capnweb prints.
"""

import json
import math
import sys
from array import array
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transcript import BareSession

from rpcshare.rpc import (
    JSON,
    UNDEFINED,
    URL,
    AggregateError,
    ArrayBuffer,
    BigInt,
    Codec,
    DataView,
    Date,
    EncodeError,
    Headers,
    Preencoded,
    Request,
    Response,
    RpcError,
    Session,
    Uint8ClampedArray,
)
from rpcshare.rpc.decoding import Decoder
from rpcshare.rpc.encoding import Encoder
from rpcshare.rpc.messagepack import MESSAGEPACK


def caused(error: RpcError, cause: Exception) -> RpcError:
    error.__cause__ = cause
    return error


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEYOND = 2**53  # the first integer from which JavaScript's numbers are not exact

# Both directions: what is sent for the value is what the value is received as.
Cases = dict[str, tuple[object, object]]

BOTH_WAYS: Cases = {
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
    "an ArrayBuffer": (ArrayBuffer(b"\x00\xff"), '["bytes","AP8","ArrayBuffer"]'),
    "a DataView": (DataView(b""), '["bytes","","DataView"]'),
    "a Uint8ClampedArray": (Uint8ClampedArray(b"a"), '["bytes","YQ","Uint8ClampedArray"]'),
    "an Int8Array": (array("b", [-1]), '["bytes","/w","Int8Array"]'),
    "an Int16Array": (array("h", [-2]), '["bytes","/v8","Int16Array"]'),
    "a Uint16Array": (array("H", [1]), '["bytes","AQA","Uint16Array"]'),
    "an Int32Array": (array("i", [1]), '["bytes","AQAAAA","Int32Array"]'),
    "a Uint32Array": (array("I", [2**32 - 1]), '["bytes","/////w","Uint32Array"]'),
    "a BigInt64Array": (array("q", [-1]), '["bytes","//////////8","BigInt64Array"]'),
    "a BigUint64Array": (array("Q", [1]), '["bytes","AQAAAAAAAAA","BigUint64Array"]'),
    "a Float32Array": (array("f", [1.5]), '["bytes","AADAPw","Float32Array"]'),
    "a Float64Array": (array("d", [1.0]), '["bytes","AAAAAAAA8D8","Float64Array"]'),
    "a Float64Array of no numbers": (array("d"), '["bytes","","Float64Array"]'),
    "a URL": (URL("https://a.example/?b#c"), '["url","https://a.example/?b#c"]'),
    "headers": (
        Headers([("set-cookie", "a"), ("accept", "*"), ("set-cookie", "b")]),
        '["headers",[["set-cookie","a"],["accept","*"],["set-cookie","b"]]]',
    ),
    "a request": (Request("https://a.example/"), '["request","https://a.example/",{}]'),
    "a request with all that it may have": (
        Request(
            "https://a.example/",
            method="PUT",
            headers={"a": "b"},
            body="text",
            options={"redirect": "error", "cf": {"list": [1, [2]]}},
        ),
        '["request","https://a.example/",{"method":"PUT","headers":[["a","b"]],"body":"text",'
        '"redirect":"error","cf":{"list":[1,[2]]}}]',
    ),
    "a request with a body of bytes": (
        Request("https://a.example/", method="POST", body=b"a"),
        '["request","https://a.example/",{"method":"POST","body":["bytes","YQ"]}]',
    ),
    "a response": (Response(), '["response",null,{}]'),
    "a response with all that it may have": (
        Response(b"a", status=404, status_text="Not Found", headers={"a": "b"}, options={"cf": [1]}),
        '["response",["bytes","YQ"],{"status":404,"statusText":"Not Found","headers":[["a","b"]],"cf":[1]}]',
    ),
    "a response with an empty body": (Response(""), '["response","",{}]'),
    "a date": (datetime(2025, 6, 8, 1, 2, 50, 815_000, tzinfo=UTC), '["date",1749344570815]'),
    "a date before the epoch": (EPOCH - timedelta(milliseconds=1), '["date",-1]'),
    "a date of microseconds": (EPOCH + timedelta(seconds=1, microseconds=1), '["date",1000.001]'),
    "an invalid date": (Date(None), '["date",null]'),
    "a date that datetime cannot hold": (Date(8.64e15), '["date",8640000000000000.0]'),
}

Point = namedtuple("Point", "x y")
Color = StrEnum("Color", {"RED": "red"})
Level = IntEnum("Level", {"HIGH": 3})
Place = Enum("Place", {"ORIGIN": (0, 0)})

# One direction: Python has more kinds than the wire.
SENT_AS: Cases = {
    "a tuple": ((1, 2), "[[1,2]]"),
    "a named tuple": (Point(1, 2), "[[1,2]]"),
    "an ordered dict": (OrderedDict(a=1), '{"a":1}'),
    "a default dict": (defaultdict(list, a=[1]), '{"a":[[1]]}'),
    "a member of a StrEnum": (Color.RED, '"red"'),
    "a member of an IntEnum": (Level.HIGH, "3"),
    "a member of an Enum": (Place.ORIGIN, "[[0,0]]"),
    "a key that is a member of a StrEnum": ({Color.RED: [1]}, '{"red":[[1]]}'),
    "a subclass of str": (type("Name", (str,), {})("x"), '"x"'),
    "a subclass of int": (type("Count", (int,), {})(3), "3"),
    "a subclass of float": (type("Ratio", (float,), {})(0.5), "0.5"),
    "a large subclass of int": (type("Count", (int,), {})(BEYOND), '["bigint","9007199254740992"]'),
    "an infinite subclass of float": (type("Ratio", (float,), {})(math.inf), '["inf"]'),
    "an array of unsigned bytes": (array("B", [97]), '["bytes","YQ"]'),
    "a subclass of URL": (type("Link", (URL,), {})("a:b"), '["url","a:b"]'),
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
    "an error with a cause": (
        caused(RpcError("no"), RpcError("why", name="RangeError")),
        '["error","Error","no",null,{"cause":["error","RangeError","why"]}]',
    ),
    "an error with a cause of its own making": (
        caused(RpcError("no", properties={"cause": 5}), RpcError("why")),
        '["error","Error","no",null,{"cause":5}]',
    ),
    "an error whose cause is internal": (
        caused(RpcError("no"), ValueError("a detail")),
        '["error","Error","no"]',
    ),
    "several errors in one": (
        AggregateError("all", [RpcError("a"), RpcError("b", name="TypeError")], code="X"),
        '["error","AggregateError","all",null,'
        '{"code":"X","errors":[[["error","Error","a"],["error","TypeError","b"]]]}]',
    ),
    "an error with a stack": (RpcError("no", stack="at home"), '["error","Error","no"]'),
}

RECEIVED_AS: Cases = {
    "bytes of the container that goes without saying": ('["bytes","YQ","Uint8Array"]', b"a"),
    "a request with no body": ('["request","a:b",{"body":null,"duplex":"half"}]', Request("a:b")),
    "a request whose method is in lower case": (
        '["request","a:b",{"method":"post"}]',
        Request("a:b", method="POST"),
    ),
    "a response without headers": ('["response",null,{"headers":null}]', Response()),
    "headers in upper case": ('["headers",[["Accept"," a "]]]', Headers({"accept": "a"})),
    "an integer that is no bigint": ("9007199254740993", 9007199254740992.0),
    "a large number without an exponent": ("100000000000000000000", 1e20),
    "a number that JavaScript reads as infinite": ("1" + "0" * 400, math.inf),
    "another": ("-1e999", -math.inf),
    "large numbers within": ('{"a":[[10000000000000000]],"b":-10000000000000000}', {"a": [1e16], "b": -1e16}),
    "bytes with padding": ('["bytes","YQ=="]', b"a"),
    "a date beyond what JavaScript has": ('["date",8640000000000001]', Date(None)),
    "a date of infinitely many milliseconds": ('["date",1e999]', Date(None)),
    "a date of more digits than a float has": ('["date",1' + "0" * 400 + "]", Date(None)),
    "a date east of the last": ('["date",253402300800000]', Date(253402300800000)),
    "inf with company": ('["inf",1]', math.inf),
}

UNSENDABLE = {
    "an array of characters": array("u" if sys.version_info < (3, 13) else "w", "a"),
    "an option that is no JSON": Request("a:b", options={"cf": {"when": datetime(2025, 1, 1, tzinfo=UTC)}}),
    "an option that JSON has no number for": Response(options={"cf": [math.nan]}),
    "an object": object(),
    "a class": dict,
    "a set": {1},
    "a complex number": 1j,
    "a decimal": Decimal(1),
    "a day": date(2025, 1, 1),
    "a time span": timedelta(1),
    "a UUID": UUID(int=0),
    "a generator": (n for n in ""),
    "a key that is a number": {1: 2},
    "a key that is nothing": {None: 1},
    "a date that no clock has shown": datetime.min,
}


def expression_of(value: object) -> str:
    encoder = Encoder(None, max_depth=256, raw_bytes=False)
    return JSON.encode(encoder.encode(value)).decode()


def received(text: str) -> Any:
    """Return the value that a peer finds as the result of a call, if this is its expression."""
    values: list[object] = []
    session = BareSession(values.append)
    session.session.receive(JSON.decode('["push",["pipeline",0,[],[' + text + "]]]"))
    session.carry_out()
    assert session.session.closed is None
    return values[0]


def cases(table: Cases) -> pytest.MarkDecorator:
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
        part: dict[str, Any] = {"id": "prt_1", "time": {"start": 1}, "tags": ["a"]}
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

    def test_an_error_has_the_cause_it_was_sent_with(self) -> None:
        error = received('["error","Error","no",null,{"cause":["error","TypeError","why"],"code":"X"}]')
        assert (error.__cause__.name, error.__cause__.message) == ("TypeError", "why")
        assert error.properties == {"code": "X"}

    def test_a_cause_that_is_no_error_is_a_property(self) -> None:
        error = received('["error","Error","no",null,{"cause":"why"}]')
        assert (error.__cause__, error.properties) == (None, {"cause": "why"})

    def test_several_errors_in_one_are_a_group(self) -> None:
        error = received(
            '["error","AggregateError","all","at x",{"a":1,"errors":[[["error","TypeError","b"]]]}]'
        )
        assert isinstance(error, AggregateError)
        assert (error.message, error.stack, error.properties) == ("all", "at x", {"a": 1})
        (each,) = error.exceptions
        assert isinstance(each, RpcError)
        assert (each.name, each.message) == ("TypeError", "b")

    @pytest.mark.parametrize("errors", ["[[]]", '[["text"]]', '[[["error","Error","a"],null]]', "5"])
    def test_errors_that_make_no_group_are_a_property(self, errors: str) -> None:
        error = received('["error","AggregateError","all",null,{"errors":' + errors + "}]")
        assert type(error) is RpcError
        assert list(error.properties) == ["errors"]

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
        loaded: list[object] = [[1], "encoded again"]
        event = Preencoded(load=lambda: loaded.pop(0))
        assert JSON.encode([event]) == JSON.encode([event]) == b"[[[1]]]"

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
tokens = st.from_regex(r"[a-z0-9-]{1,10}", fullmatch=True)
header_values = st.from_regex(r"([!-~\x80-\xff]([ -~]*[!-~])?)?", fullmatch=True)
headers = st.lists(st.tuples(tokens, header_values), max_size=4).map(Headers)
urls = st.from_regex(r"https?://[a-z]{1,8}\.example(:[0-9]{1,4})?/[!-~]*", fullmatch=True).map(URL)
bodies = st.none() | st.text() | st.binary()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
options = st.dictionaries(st.sampled_from(["cf", "redirect", "mode", "x"]), json_values)
arrays = st.sampled_from("bhHiIqQfd").flatmap(
    lambda code: st.binary(max_size=5).map(lambda data: array(code, data * array(code).itemsize))
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=1 - BEYOND, max_value=BEYOND - 1)
    | st.integers().map(BigInt)
    | st.floats()
    | texts
    | st.binary()
    | st.sampled_from([ArrayBuffer, DataView, Uint8ClampedArray]).flatmap(st.binary().map)
    | arrays
    | urls
    | headers
    | st.builds(
        Request, urls, method=st.sampled_from(["PUT", "PATCH"]), headers=headers, body=bodies, options=options
    )
    | st.builds(Response, bodies, status=st.sampled_from([200, 404]), headers=headers, options=options)
    | st.just(UNDEFINED)
    | st.sampled_from(["export", "import", "pipeline", "error", "undefined", "nan"])
    # A number of milliseconds tells microseconds apart for about a century and a half around the epoch.
    | st.integers(-(2**51), 2**51).map(lambda microseconds: EPOCH + timedelta(microseconds=microseconds))
)


def an_error(message: str, name: str, properties: dict[str, object], cause: RpcError | None) -> RpcError:
    error = RpcError(message, name=name, properties=properties)
    error.__cause__ = cause
    return error


def errors_of(inner: st.SearchStrategy[object]) -> st.SearchStrategy[RpcError]:
    properties = st.dictionaries(tokens, inner, max_size=2)
    single = st.builds(an_error, texts, st.sampled_from(["Error", "TypeError"]), properties, st.none())
    caused_ = st.builds(an_error, texts, st.just("RangeError"), properties, single)
    return caused_ | st.builds(AggregateError, texts, st.lists(single | caused_, min_size=1, max_size=3))


values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5) | errors_of(inner),
    max_leaves=20,
)


def shown(value: object) -> object:  # noqa: PLR0911 -- one return for each kind
    """Return ``value`` in a form in which what differs on the wire is not equal, and nan is to itself."""
    match value:
        case dict():
            return [(name, shown(item)) for name, item in value.items()]
        case list():
            return [shown(item) for item in value]
        case RpcError():
            errors = [shown(error) for error in getattr(value, "exceptions", ())]
            properties = shown(value.properties)
            return [type(value), value.name, value.message, properties, shown(value.__cause__), errors]
        case Headers():
            return ["headers", value.pairs()]
        case Request():
            return [value.method, value.url, shown(value.headers), repr(value.body), repr(value.options)]
        case Response():
            return [value.status, shown(value.headers), repr(value.body), repr(value.options)]
        case array():
            return [value.typecode, value.tobytes()]
        case _:
            # 1, 1.0, True and BigInt(1) are equal.
            return repr(value)


def carried(codec: Codec, value: object) -> object:
    """Return what arrives of ``value``."""
    expression = Encoder(None, max_depth=256, raw_bytes=codec.raw_bytes).encode(value)
    session = Session()
    return Decoder(session, session).decode(codec.decode(codec.encode(expression))).value


@pytest.mark.parametrize("codec", [JSON, MESSAGEPACK], ids=["JSON", "MessagePack"])
@settings(max_examples=150, deadline=None)
@given(value=values)
def test_whatever_is_sent_is_received(codec: Codec, value: object) -> None:
    assert shown(carried(codec, value)) == shown(value)


@settings(max_examples=100, deadline=None)
@given(values)
def test_whatever_is_received_can_be_sent_back(value: object) -> None:
    expression = expression_of(value)
    assert expression_of(received(expression)) == expression


def test_numbers_are_little_endian_whatever_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    # On the other kind of machine the same array has the same bytes in the other order.
    numbers = array("H", [0x0102])
    assert expression_of(numbers) == '["bytes","AgE","Uint16Array"]'
    other = {"little": "big", "big": "little"}[sys.byteorder]
    monkeypatch.setattr(sys, "byteorder", other)
    numbers.byteswap()
    assert expression_of(numbers) == '["bytes","AgE","Uint16Array"]'
    assert received('["bytes","AgE","Uint16Array"]') == numbers
