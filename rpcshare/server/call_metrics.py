"""How often exported methods are called, how that ends, and how long it takes.

Counted in plain numbers, on the event loop: prometheus_client's own counters take a lock each, which is more
than many a call takes by itself. They become its metrics when they are asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.latencies import BOUNDS
from rpcshare.rpc import RpcError
from rpcshare.rpc.counted_calls import CountedMethods

__all__ = ["CallMetrics"]

_LABELS = [*map(floatToGoString, BOUNDS), "+Inf"]
_CODES = frozenset(ErrorCode)


class CallMetrics(Collector):
    """The calls of one application, by method; ``refused`` is called for each that ended as UNAUTHORIZED."""

    def __init__(self, refused: Callable[[], None]) -> None:
        def failed(outcome: str) -> None:
            if outcome == ErrorCode.UNAUTHORIZED:
                refused()

        self._methods = CountedMethods(BOUNDS, _outcome, failed)
        self.around_call = self._methods.around_call
        """Given a function that a peer calls, returns it, counted if it is an exported method."""

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
        for name, calls in self._methods.by_name.items():
            for outcome, count in calls.outcomes.items():
                ended.add_metric([name, outcome], count)
            counts = accumulate(calls.counts)
            times.add_metric([name], list(zip(_LABELS, counts, strict=True)), calls.seconds)
        yield ended
        yield times


def _outcome(error: BaseException) -> str:
    code = error.code if isinstance(error, ShareError | RpcError) else None
    if code in _CODES:
        return str(code)
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
