"""What a well-behaved peer says, which the fuzzer spoils, and the target that it says it to."""

import asyncio
from collections.abc import AsyncIterator

from rpcshare.rpc import (
    Promise,
    ReadableStream,
    RpcError,
    RpcTarget,
    Stub,
    WritableStream,
    rpc_method,
    rpc_property,
)

Message = list[object]


class Counter(RpcTarget):
    def __init__(self) -> None:
        self.count = 0

    @rpc_method("increment(by?)")
    def increment(self, by: int = 1) -> int:
        self.count = (self.count + by) % 1000
        return self.count

    @rpc_property("value")
    def value(self) -> int:
        return self.count


class Bait(RpcTarget):
    """Has a member for each thing that a session can be asked to do. None of them fails by accident."""

    def __init__(self) -> None:
        self.kept: list[Stub] = []

    @rpc_method("square(i)")
    def square(self, i: float) -> float:
        return min(abs(i), 1e9) ** 2

    @rpc_method("echo(value)")
    def echo(self, value: object) -> object:
        return value

    @rpc_method("later(value)")
    async def later(self, value: object) -> object:
        await asyncio.sleep(0)
        return value

    @rpc_method("call(callback, value)")
    async def call(self, callback: Stub, value: object) -> object:
        return await callback(value)

    @rpc_method("pass(callback, value)")
    def pass_on(self, callback: Stub, value: object) -> Promise:
        return callback.deeper(value)

    @rpc_method("keep(stub)")
    def keep(self, stub: Stub) -> None:
        self.kept = [*self.kept[-9:], stub.dup()]

    @rpc_method("make()")
    def make(self) -> Counter:
        return Counter()

    @rpc_method("list()")
    def list(self) -> list[object]:
        return [{"id": number, "counter": Counter(), "tags": ["a", "b"]} for number in range(5)]

    @rpc_method("fail()")
    def fail(self) -> None:
        raise RpcError("no", name="RangeError", code="NO", properties={"counter": Counter()})

    @rpc_method("numbers(count)")
    async def numbers(self, count: int) -> AsyncIterator[object]:
        for number in range(count % 20):
            yield {"number": number, "counter": Counter()}

    @rpc_method("drain(stream)")
    async def drain(self, stream: ReadableStream) -> int:
        count = 0
        async for _ in stream:
            count += 1
        return count

    @rpc_method("first(stream)")
    async def first(self, stream: ReadableStream) -> object:
        return await anext(stream, None)

    @rpc_method("fill(stream, count)")
    async def fill(self, stream: WritableStream, count: int) -> None:
        async with stream:
            for number in range(count % 20):
                await stream.write([number])

    @rpc_method("sink()")
    def sink(self) -> WritableStream:
        return WritableStream.calling(lambda value: None)

    @rpc_method("map(stub)")
    def map(self, stub: Stub) -> Promise:
        return stub.map(lambda value: {"value": value, "id": value.id, "again": stub})

    @rpc_property("counter")
    def counter(self) -> Counter:
        return Counter()


def call(name: str, *arguments: object, of: int = 0) -> Message:
    return ["push", ["pipeline", of, [name], list(arguments)]]


def write(number: int, method: str, *arguments: object) -> Message:
    return ["stream", ["pipeline", number, [method], list(arguments)]]


def later(expression: object, pushed: int) -> object:
    """Return what ``expression``, or a message, becomes if so many pushes have come before its dialogue."""
    if isinstance(expression, dict):
        return {name: later(item, pushed) for name, item in expression.items()}
    if not isinstance(expression, list):
        return expression
    if expression and expression[0] == "remap":
        head, instructions = expression[:4], expression[4:]  # which count on their own
        return [*_renumbered([later(item, pushed) for item in head], pushed), *instructions]
    return _renumbered([later(item, pushed) for item in expression], pushed)


def _renumbered(expression: list[object], pushed: int) -> list[object]:
    number = expression[1] if len(expression) > 1 else None
    kinds = ("pull", "release", "pipeline", "import", "readable", "remap")
    if type(number) is int and number > 0 and expression[0] in kinds:
        return [expression[0], number + pushed, *expression[2:]]
    return expression


VALUES = {
    "plain": [[None, True, 1, -2.5, "text", {"": {"__proto__": [[]]}}, [[[[]]]]]],
    "numbers": [[["inf"], ["-inf"], ["nan"], ["undefined"], ["bigint", "12345678901234567890"]]],
    "date": ["date", 1757214689123],
    "bytes": [[["bytes", "aGk"], ["bytes", "AAAAAAAAAAA", "Float64Array"], ["bytes", "AAA", "ArrayBuffer"]]],
    "error": ["error", "TypeError", "bad", "at f", {"code": "X", "cause": ["error", "Error", "deep"]}],
    "errors": ["error", "AggregateError", "", None, {"errors": [[["error", "Error", "one"]]]}],
    "fetch": [
        [
            ["url", "https://share.example/?q=1"],
            ["headers", [["content-type", "text/plain"], ["x", "y"]]],
            ["request", "https://share.example/", {"method": "POST", "body": "text"}],
            ["response", ["bytes", "aGk"], {"status": 404, "headers": [["a", "b"]]}],
        ]
    ],
}

DIALOGUES: list[list[Message]] = [
    [call("square", 4), ["pull", 1], ["release", 1, 1]],
    [
        call("make"),
        call("increment", 5, of=1),
        call("square", ["pipeline", 2]),
        ["pull", 3],
        ["release", 1, 1],
    ],
    [call("echo", VALUES), ["pull", 1], ["release", 1, 1], ["push", VALUES], ["pull", 2], ["release", 2, 1]],
    [["push", {"sizes": [[3, 4]]}], call("echo", ["pipeline", 1, ["sizes", 1]]), ["pull", 2]],
    [call("fail"), ["pull", 1], call("deeper", of=1), ["pull", 2], ["release", 1, 1]],
    [
        call("call", ["export", -1], "x"),
        ["pull", 1],
        ["resolve", 1, {"counter": ["export", -2]}],
        ["release", 1, 1],
    ],
    [
        call("call", ["export", -1], 1),
        ["reject", 1, ["error", "Error", "no"]],
        ["pull", 1],
        ["release", 1, 1],
    ],
    [call("pass", ["export", -1], ["import", 0]), ["pull", 1], ["resolve", 1, ["export", -2]]],
    [call("pass", ["import", 0], {"main": ["import", 0]}), ["pull", 1], ["release", 1, 1]],
    [call("keep", ["export", -1]), call("keep", ["export", -1]), ["pull", 1], ["pull", 2]],
    [call("later", ["promise", -1]), ["pull", 1], ["resolve", -1, ["export", -2]], ["release", 1, 1]],
    [
        call("echo", ["promise", -1]),
        call("echo", ["promise", -2]),
        ["reject", -2, 5],
        ["pull", 1],
        ["pull", 2],
    ],
    [
        call("list"),
        ["pull", 1],
        ["release", -1, 1],
        ["release", 1, 1],
        ["push", ["pipeline", 0, ["counter", "value"]]],
    ],
    [["push", ["import", 0]], call("square", 2, of=1), ["pull", 1], ["pull", 2], ["release", -1, 1]],
    # Streams
    [
        ["pipe"],
        call("drain", ["readable", 1]),
        ["pull", 2],
        write(1, "write", "a"),
        write(1, "close"),
        ["release", 1, 1],
    ],
    [
        ["pipe"],
        call("first", ["readable", 1]),
        write(1, "write", ["export", -1]),
        write(1, "write", 2),
        ["pull", 2],
    ],
    [
        ["pipe"],
        write(1, "write", ["promise", -1]),
        call("drain", ["readable", 1]),
        ["resolve", -1, 5],
        write(1, "abort", 1),
    ],
    [
        ["pipe"],
        call("echo", ["readable", 1]),
        ["pull", 2],
        write(1, "write", VALUES),
        ["resolve", 2, None],
        ["release", 2, 1],
    ],
    [
        call("numbers", 5),
        ["pull", 1],
        ["resolve", 2, None],
        ["resolve", 3, None],
        ["reject", 4, 5],
        ["release", 1, 1],
    ],
    [
        call("fill", ["writable", -1], 3),
        ["pull", 1],
        ["resolve", 1, None],
        ["resolve", 2, None],
        ["resolve", 3, None],
    ],
    [
        call("fill", ["writable", -1], 9),
        ["pull", 1],
        ["reject", 1, ["error", "Error", "full"]],
        ["release", 1, 1],
    ],
    [
        call("sink"),
        ["pull", 1],
        write(-1, "write", VALUES),
        write(-1, "close"),
        ["release", -1, 1],
        ["release", 1, 1],
    ],
    [
        ["pipe"],
        call("echo", ["blob", "text/plain", ["readable", 1]]),
        ["pull", 2],
        write(1, "write", ["bytes", "aGk"]),
        write(1, "close"),
    ],
    # Maps
    [call("list"), ["push", ["remap", 1, [], [], [["pipeline", 0, ["id"]]]]], ["pull", 2], ["release", 1, 1]],
    [
        call("list"),
        [
            "push",
            [
                "remap",
                1,
                [],
                [["import", 0]],
                [["pipeline", -1, ["square"], [["pipeline", 0, ["id"]]]], {"is": ["pipeline", 1]}],
            ],
        ],
        ["pull", 2],
    ],
    [
        call("list"),
        [
            "push",
            [
                "remap",
                1,
                [],
                [],
                [
                    ["remap", 0, ["tags"], [["import", 0]], [[[["pipeline", -1], ["pipeline", 0]]]]],
                    ["pipeline", 1],
                ],
            ],
        ],
        ["pull", 2],
    ],
    [
        call("list"),
        [
            "push",
            ["remap", 1, [], [["export", -1]], [["pipeline", -1, [], [["pipeline", 0]]], ["pipeline", 1]]],
        ],
        ["pull", 2],
        ["resolve", 1, 5],
    ],
    [call("map", ["export", -1]), ["pull", 1], ["resolve", 1, [[1, 2]]], ["release", 1, 1]],
    [
        call("echo", ["remap", 0, ["counter"], [], [["pipeline", 0, ["value"]]]]),
        ["pull", 1],
        ["abort", ["error", "Error", "bye"]],
    ],
]

TAGS = [
    *("push", "pull", "resolve", "reject", "release", "stream", "pipe", "abort"),
    *("import", "export", "promise", "pipeline", "remap", "readable", "writable"),
    *("undefined", "inf", "-inf", "nan", "bigint", "date", "bytes", "error"),
    *("blob", "url", "headers", "request", "response"),
    *Bait.rpc_members,
    *(
        "write",
        "close",
        "abort",
        "value",
        "deeper",
        "id",
        "tags",
        "then",
        "constructor",
        "__proto__",
        "__class__",
    ),
]
