"""Values that both sides know by name: what Python has for tests/node/interop_values.mjs."""

import math
from array import array
from datetime import UTC, datetime, timedelta

from rpcshare.rpc import (
    UNDEFINED,
    URL,
    AggregateError,
    ArrayBuffer,
    BigInt,
    DataView,
    Date,
    Headers,
    Request,
    Response,
    RpcError,
    Uint8ClampedArray,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def caused(error: RpcError, cause: RpcError) -> RpcError:
    error.__cause__ = cause
    return error


VALUES: dict[str, object] = {
    "null": None,
    "true": True,
    "zero": 0,
    "fraction": 1.5,
    "largest exact integer": 2**53 - 1,
    "large number": 1e20,
    "smallest number": 5e-324,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "nan": math.nan,
    "text": "hello",
    "emoji": "😀",
    "half an emoji": "\ud83d",
    "text that looks like a kind": "export",
    "array": [1, "a", None],
    "array in an array": [[1], []],
    "array that looks like an expression": ["export", -1],
    "object": {"a": 1, "b": [2], "": {}},
    "undefined": UNDEFINED,
    "bigint": BigInt(5),
    "negative bigint": BigInt(-(2**80)),
    "bytes": b"\x00\xff\xfe~",
    "no bytes": b"",
    "date": EPOCH + timedelta(milliseconds=1749344570815),
    "date before the epoch": EPOCH - timedelta(milliseconds=1),
    "invalid date": Date(None),
    "error": RpcError("no"),
    "type error": RpcError("no", name="TypeError"),
    "error with properties": RpcError("no", properties={"code": "X", "list": [1]}),
    "error with a cause": caused(RpcError("no"), RpcError("why", name="RangeError")),
    "error whose cause is none": RpcError("no", properties={"cause": "text"}),
    "aggregate error": AggregateError("both", [RpcError("a"), RpcError("b", name="TypeError")]),
    "empty aggregate error": RpcError("none", name="AggregateError", properties={"errors": []}),
    "array buffer": ArrayBuffer(b"\x01\x02"),
    "data view": DataView(b"\x01\x02"),
    "clamped bytes": Uint8ClampedArray(b"\x01\xff"),
    "int8 array": array("b", [1, -1]),
    "int16 array": array("h", [1, -1]),
    "uint16 array": array("H", [1, 65535]),
    "int32 array": array("i", [1, -1]),
    "uint32 array": array("I", [1, 2**32 - 1]),
    "bigint64 array": array("q", [1, -1]),
    "biguint64 array": array("Q", [1, 2**64 - 1]),
    "float32 array": array("f", [1.5, -math.inf]),
    "float64 array": array("d", [1.5, 5e-324]),
    "no numbers": array("d"),
    "url": URL("https://example.com/path?q=1#end"),
    "opaque url": URL("data:text/plain,a b"),
    "headers": Headers([("accept", "*/*"), ("set-cookie", "a"), ("set-cookie", "b"), ("x-b", "1, 2")]),
    "no headers": Headers(),
    "request": Request("https://example.com/"),
    "request with headers": Request(
        "https://example.com/",
        method="DELETE",
        headers={"x-a": "1", "x-b": "2"},
        options={"redirect": "manual"},
    ),
    "response": Response(),
    "response without content": Response(status=204, status_text="None", headers={"x-a": "1"}),
    "nested": {"list": [{"when": EPOCH + timedelta(milliseconds=5), "bytes": b"\x01"}, UNDEFINED]},
}


def shown(value: object) -> object:
    """Return ``value`` in a form that compares: errors by what they say, and nan as equal to itself."""
    if isinstance(value, RpcError):
        errors = [shown(error) for error in getattr(value, "exceptions", ())]
        return ("error", value.name, value.message, value.properties, shown(value.__cause__), errors)
    if isinstance(value, bytes | array):
        return (type(value), value)  # containers of the same bytes are equal
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value
