"""How often exported methods are called, how that ends, and how long it takes.

Counted in plain numbers, on the event loop: prometheus_client's own counters take a lock each, which is more
than many a call takes by itself. They become its metrics when they are asked for.
"""

from __future__ import annotations

import asyncio
import functools
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable
from itertools import accumulate
from time import perf_counter

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.latencies import BOUNDS
from rpcshare.rpc import RpcError, Stub
from rpcshare.rpc.driver import PLAIN
from rpcshare.rpc.members import Method

__all__ = ["CallMetrics"]

Function = Callable[..., object]

_LABELS = [*map(floatToGoString, BOUNDS), "+Inf"]
_CODES = frozenset(ErrorCode)


class CallMetrics(Collector):
    """The calls of one application, by method; ``refused`` is called for each that ended as UNAUTHORIZED."""

    def __init__(self, refused: Callable[[], None]) -> None:
        self._refused = refused
        self._methods: dict[str, _Calls] = {}

    def around_call(self, function: Function) -> Function:
        """Return ``function``, which a peer calls, counted if it is an exported method."""
        method = function.func if isinstance(function, functools.partial) else None
        if not isinstance(method, Method):
            return function
        calls = self._methods.get(method.name)
        if calls is None:
            calls = self._methods[method.name] = _Calls(self._refused)
        return functools.partial(calls.carry_out, function)

    def collect(self) -> Iterable[Metric]:
        """Yield the counts and the times."""
        ended = CounterMetricFamily(
            "rpcshare_rpc_calls",
            "Calls of exported methods that have ended: ok, or the code they failed with.",
            labels=["method", "outcome"],
        )
        times = HistogramMetricFamily(
            "rpcshare_rpc_call_seconds", "From the begin of a call to its end.", labels=["method"]
        )
        for name, calls in self._methods.items():
            for outcome, count in calls.outcomes.items():
                ended.add_metric([name, outcome], count)
            counts = accumulate(calls.counts)
            times.add_metric([name], list(zip(_LABELS, counts, strict=True)), calls.seconds)
        yield ended
        yield times


class _Calls:
    """The calls of one method."""

    __slots__ = ("_refused", "counts", "outcomes", "seconds")

    def __init__(self, refused: Callable[[], None]) -> None:
        self._refused = refused
        self.outcomes: dict[str, int] = {}
        # How many took at most so long as each of the bounds, and longer than the one before.
        self.counts = [0] * len(_LABELS)
        self.seconds = 0.0

    def carry_out(self, function: Function, *arguments: object) -> object:
        began_at = perf_counter()
        try:
            result = function(*arguments)
        except Exception as exc:
            self._ended(began_at, _outcome(exc))
            raise
        if type(result) not in PLAIN and isinstance(result, Awaitable) and not isinstance(result, Stub):
            return self._awaited(began_at, result)
        self._ended(began_at, "ok")
        return result

    async def _awaited(self, began_at: float, result: Awaitable[object]) -> object:
        try:
            value = await result
        except BaseException as exc:
            self._ended(began_at, _outcome(exc))
            raise
        self._ended(began_at, "ok")
        return value

    def _ended(self, began_at: float, outcome: str) -> None:
        seconds = perf_counter() - began_at
        self.seconds += seconds
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if outcome == ErrorCode.UNAUTHORIZED:
            self._refused()


def _outcome(error: BaseException) -> str:
    code = error.code if isinstance(error, ShareError | RpcError) else None
    if code in _CODES:
        return str(code)
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
