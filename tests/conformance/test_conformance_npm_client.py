"""npm's capnweb, unchanged, as a client of the conformance target: every method, and nothing left behind."""

import asyncio
from typing import Any

import pytest

from conformance.servers import needs_npm, npm_client, over_websocket
from rpcshare.conformance.serving import serving

pytestmark = [pytest.mark.node, needs_npm]

SESSION = {
    "calls": {
        "square": 144,
        "callSquare": 49,
        "numbers": [0, 1, 1, 2, 3, 5],
        "null": None,
        "undefined": "Undefined",
        "number": -1.5,
        "error": {"type": "RangeError", "message": "test error"},
        "noMethod": {"type": "TypeError", "message": "'nothing' is not a function."},
    },
    "counters": {
        "increment": [6, 16],
        "value": 16,
        "handedBack": 20,
        "byDefault": 21,
        "pipelined": 3,
        "pipelinedHandedBack": 6,
    },
    "callbacks": {
        "result": 42,
        "heard": [41],
        "target": 42,
        "counter": 111,
        "failing": {"type": "TypeError", "message": "not today"},
        "ownAgain": 15,
    },
    "values": {
        "list": [1, [2, []], {}],
        "hasUndefined": True,
        "numbers": ["Infinity", "-Infinity", "NaN", "-0.5", "1152921504606847000"],
        "big": "12345678901234567890",
        "date": "2025-09-07T03:11:29.123Z",
        "bytes": ["Uint8Array", 0, 1, 255],
        "floats": ["Float64Array", 1.5, -2.5],
        "shorts": ["Int16Array", -1, 256],
        "buffer": ["ArrayBuffer", 7, 8],
        "error": ["RangeError", "m", "TypeError", "c"],
        "url": "https://example.com/a?b",
        "headers": [["x-a", "1"]],
    },
    "blobs": {
        "type": "text/x-mixed",
        "bytes": [*b"hello, \x00\xff"],
        "empty": [0, ""],
        "large": [1_000_000, True],
    },
    "bodies": {
        "request": ["https://example.com/a", "POST", "1", "question"],
        "response": [201, "2", "answer"],
    },
    "streams": {
        "sum": 6.5,
        "sumOfNothing": 0,
        "count": [0, 1, 2, 3, 4],
        "countOfMany": 2000,
        "countHandedBack": 45,
        "written": ["a", {"b": [1]}, "1970-01-01T00:00:00.000Z"],
        "broken": {"type": "RangeError", "message": "ran out"},
    },
    "cancelled": {"first": [0, 1], "after": 9},
    "map": {
        "squares": [[0, 0], [1, 1], [1, 1], [2, 4], [3, 9], [5, 25]],
        "lists": [[], [0], [0], [0, 1], [0, 1, 1], [0, 1, 1, 2, 3]],
        "ofNull": None,
        "ofOne": 81,
    },
    "dispose": {"afterFirst": 2, "disposed": 1},
    "mapWithCapture": {"counted": [0, 1, 2, 4, 7, 12]},
}


async def whole_session() -> dict[str, Any]:
    async with serving() as url:
        return await npm_client(over_websocket(url))


@pytest.fixture(scope="module")
def session() -> dict[str, Any]:
    return asyncio.run(whole_session())


@pytest.mark.parametrize("scenario", SESSION)
def test_a_session_over_websocket_gives_what_the_target_promises(session, scenario):
    outcome = session["results"][scenario]
    assert {name: value for name, value in outcome.items() if name != "stats"} == SESSION[scenario]


@pytest.mark.parametrize("scenario", sorted({*SESSION} - {"mapWithCapture"}))
def test_when_all_is_disposed_of_the_tables_are_as_at_the_start(session, scenario):
    assert session["results"][scenario]["stats"] == session["start"] == {"imports": 1, "exports": 1}


async def test_batches_over_http_give_what_the_target_promises():
    async with serving() as url:
        assert await npm_client(url) == {
            "incremented": 9,
            "squared": 81,
            "failed": {"type": "RangeError", "message": "test error"},
            "mapped": [0, 1, 1, 4, 9],
            "echoed": ["1970-01-01T00:00:00.000Z", "1", 2],
        }
