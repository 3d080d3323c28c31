"""The store, the database, the queues and the limits, as Prometheus is told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.database.load import DatabaseLoad
from rpcshare.latencies import BOUNDS, Latencies
from rpcshare.shares.service import ShareService
from rpcshare.storage.observed import ObservedStore

__all__ = ["DatabaseMetrics", "LimitMetrics", "QueueMetrics", "StoreMetrics"]

_LABELS = [*map(floatToGoString, BOUNDS), "+Inf"]


class StoreMetrics(Collector):
    """What the store is asked for."""

    def __init__(self, store: ObservedStore) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        """Yield the times, the failures and the bytes."""
        yield from _operations("store", "Operations of the store", self._store.operations)
        yield CounterMetricFamily(
            "rpcshare_store_read_bytes", "Bytes of objects read from the store.", self._store.read_bytes
        )
        yield CounterMetricFamily(
            "rpcshare_store_written_bytes", "Bytes of objects written to it.", self._store.written_bytes
        )


class DatabaseMetrics(Collector):
    """What the database of search is asked for, and how far its index is behind the store."""

    def __init__(self, load: DatabaseLoad, service: ShareService) -> None:
        self._load = load
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Yield the times, the failures and the lag."""
        yield from _operations("database", "Statements of the database", self._load.operations)
        index = self._service.index_lag()
        yield GaugeMetricFamily(
            "rpcshare_index_lag_seconds",
            "For how long the oldest change that is known has not been indexed for search.",
            index.seconds,
        )
        yield GaugeMetricFamily(
            "rpcshare_index_waiting_shares", "Shares with changes that are not indexed.", index.shares
        )
        yield GaugeMetricFamily(
            "rpcshare_index_available",
            "Whether the index could be written last: 1 or 0.",
            float(index.is_available),
        )


class QueueMetrics(Collector):
    """What waits."""

    def __init__(self, service: ShareService) -> None:
        self._service = service
        self.pages: Callable[[], int] = int
        """Tells how many pages wait, or are being drawn."""

    def collect(self) -> Iterable[Metric]:
        """Yield how much there is in each queue."""
        waiting = GaugeMetricFamily("rpcshare_queue_depth", "What waits, by queue.", labels=["queue"])
        waiting.add_metric(["writes"], self._service.open_shares.waiting_writes)
        waiting.add_metric(["pages"], self.pages())
        yield waiting


class LimitMetrics(Collector):
    """What callers were refused for."""

    def __init__(self, limits: CallerLimits) -> None:
        self._limits = limits
        self.others: dict[str, Callable[[], int]] = {}
        """Tell how often other limits have refused somebody."""

    def collect(self) -> Iterable[Metric]:
        """Yield how often each limit has refused something."""
        refused = CounterMetricFamily(
            "rpcshare_limit_refusals", "Requests and calls refused, by limit.", labels=["limit"]
        )
        refused.add_metric(["creates"], self._limits.creates.refused)
        refused.add_metric(["failed_authentications"], self._limits.failures.refused)
        refused.add_metric(["connections"], self._limits.connections.refused)
        for name, count in self.others.items():
            refused.add_metric([name], count())
        yield refused


def _operations(kind: str, what: str, operations: Mapping[str, Latencies]) -> Iterable[Metric]:
    times = HistogramMetricFamily(
        f"rpcshare_{kind}_operation_seconds", f"{what}, and how long they take.", labels=["operation"]
    )
    failures = CounterMetricFamily(
        f"rpcshare_{kind}_operation_failures", f"{what} that failed.", labels=["operation"]
    )
    for name, latencies in list(operations.items()):
        counts = accumulate(latencies.counts)
        times.add_metric([name], list(zip(_LABELS, counts, strict=True)), latencies.seconds)
        failures.add_metric([name], latencies.failures)
    yield times
    yield failures
