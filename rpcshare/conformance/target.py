"""The target that the cases call. ``vectors/README.md`` says what each method does, for other languages."""

from __future__ import annotations

import anyio

from rpcshare.rpc import (
    UNDEFINED,
    Blob,
    ReadableStream,
    RpcError,
    RpcTarget,
    Stub,
    WritableStream,
    rpc_method,
    rpc_property,
)

__all__ = ["ConformanceTarget"]

Number = int | float


class Counter(RpcTarget):
    """Counts."""

    def __init__(self, value: Number) -> None:
        self._value = value

    @rpc_method("increment(n?)")
    def increment(self, n: Number = 1) -> Number:
        """Add ``n``; return the new value."""
        self._value += n
        return self._value

    @rpc_property("value")
    def value(self) -> Number:
        """The value as it is now."""
        return self._value


class Collector(RpcTarget):
    """Keeps what is written to a stream."""

    def __init__(self) -> None:
        self._written: list[object] = []
        self._error: Exception | None = None
        self._ended = anyio.Event()

    @rpc_method("sink()")
    def sink(self) -> WritableStream:
        """Return a stream to write to."""
        return WritableStream.calling(self._written.append, close=self._ended.set, abort=self._fail)

    @rpc_method("result()")
    async def result(self) -> list[object]:
        """Return what was written, once the stream is closed. Raises what it was aborted with."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._written

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._ended.set()


class ConformanceTarget(RpcTarget):
    """What a case finds at 0."""

    @rpc_method("square(i)")
    def square(self, i: Number) -> Number:
        """Return ``i`` times ``i``."""
        return i * i

    @rpc_method("callSquare(self, i)")
    def call_square(self, itself: Stub, i: Number) -> dict[str, object]:
        """Return, without waiting for it, what the ``square`` of another such target makes of ``i``."""
        return {"result": itself.square(i)}

    @rpc_method("callFunction(func, i)")
    async def call_function(self, func: Stub, i: object) -> dict[str, object]:
        """Return what ``func`` makes of ``i``."""
        return {"result": await func(i)}

    @rpc_method("throwError()")
    def throw_error(self) -> None:
        """Fail."""
        raise RpcError("test error", name="RangeError")

    @rpc_method("makeCounter(i)")
    def make_counter(self, i: Number) -> Counter:
        """Return a new counter that stands at ``i``."""
        return Counter(i)

    @rpc_method("incrementCounter(counter, n?)")
    def increment_counter(self, counter: Stub, n: Number = 1) -> object:
        """Increment a counter, whichever side it is on; return its new value."""
        return counter.increment(n)

    @rpc_method("generateFibonacci(n)")
    def generate_fibonacci(self, n: int) -> list[int]:
        """Return the first ``n`` Fibonacci numbers, from 0."""
        numbers: list[int] = []
        following = 0, 1
        for _ in range(n):
            numbers.append(following[0])
            following = following[1], sum(following)
        return numbers

    @rpc_method("returnNull()")
    def return_null(self) -> None:
        """Return null."""
        return None  # noqa: RET501 -- the value is the point

    @rpc_method("returnUndefined()")
    def return_undefined(self) -> object:
        """Return undefined."""
        return UNDEFINED

    @rpc_method("returnNumber(i)")
    def return_number(self, i: Number) -> Number:
        """Return ``i``."""
        return i

    @rpc_method("echoBlob(blob)")
    def echo_blob(self, blob: Blob) -> Blob:
        """Return a blob of the same bytes and type."""
        return Blob(blob.data, blob.type)

    @rpc_method("echo(value?)")
    def echo(self, value: object = UNDEFINED) -> object:
        """Return ``value``, stubs in it included."""
        return value

    @rpc_method("sum(readable)")
    async def sum(self, readable: ReadableStream) -> Number:
        """Return the sum of a stream of numbers."""
        total: Number = 0
        async for number in readable:
            if not isinstance(number, Number):
                raise RpcError("a stream of numbers has something else in it", name="TypeError")
            total += number
        return total

    @rpc_method("count(n)")
    def count(self, n: int) -> ReadableStream:
        """Return a stream of 0, 1, … up to ``n - 1``."""
        return ReadableStream(range(n))

    @rpc_method("makeCollector()")
    def make_collector(self) -> Collector:
        """Return a new collector."""
        return Collector()
