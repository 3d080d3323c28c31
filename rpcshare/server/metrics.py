"""What this server does, in numbers, for Prometheus.

Each node tells of itself, of all its processes together (:mod:`rpcshare.server.summed_metrics`). Labels are
from small sets that are known beforehand: routes, methods, codes. No id, subject, address or token is in any.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.compiled import core
from rpcshare.database.load import DatabaseLoad
from rpcshare.latencies import BOUNDS
from rpcshare.server.call_metrics import CallMetrics
from rpcshare.server.load_metrics import DatabaseMetrics, LimitMetrics, QueueMetrics, StoreMetrics
from rpcshare.shares.service import ShareService
from rpcshare.storage.observed import ObservedStore
from rpcshare.version import __version__

if TYPE_CHECKING:
    from rpcshare.server.summed_metrics import SummedMetrics

__all__ = ["Metrics", "MetricsMiddleware"]

# A series of its own for when each other began tells nobody anything.
disable_created_metrics()  # type: ignore[no-untyped-call]  # its types say nothing of it

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LAG_EVERY = 0.5  # seconds


class Metrics:
    """The numbers of one application."""

    def __init__(self, service: ShareService, limits: CallerLimits | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self.summed: SummedMetrics | None = None
        """Knows the numbers of the server's other processes, if it has any."""
        build = Info("rpcshare_build", "The version, and which core runs.", registry=registry)
        build.info({"version": __version__, "core": core(), "python": platform.python_version()})
        self._requests = Counter(
            "rpcshare_http_requests",
            "Requests answered; an accepted WebSocket has the status 101.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._durations = Histogram(
            "rpcshare_http_request_seconds",
            "From the head of a request to the head of its answer.",
            ["route", "method"],
            buckets=BOUNDS,
            registry=registry,
        )
        self._auth_failures = Counter(
            "rpcshare_auth_failures",
            "Requests and calls refused as UNAUTHORIZED: a credential is bad, or is needed and missing.",
            ["over"],
            registry=registry,
        )
        rpc_calls = CallMetrics(self._auth_failures.labels("rpc").inc)
        registry.register(rpc_calls)
        self.around_call = rpc_calls.around_call
        """Given a function that a peer calls, returns it, counted if it is an exported method."""
        self._pieces = Counter(
            "rpcshare_drawn_pieces",
            "Parts and files drawn for pages; with less detail than full, why.",
            ["detail", "cause"],
            registry=registry,
        )
        self._drawing_ends = Counter(
            "rpcshare_drawing_process_ends",
            "Processes that draw pages, ended by what they drew, or by something else (error).",
            ["cause"],
            registry=registry,
        )
        self._sessions = Gauge("rpcshare_rpc_sessions", "RPC sessions that are open.", registry=registry)
        self._event_streams = Gauge(
            "rpcshare_event_streams", "Event streams and event sockets that are open.", registry=registry
        )
        self._lag = Gauge(
            "rpcshare_event_loop_lag_seconds",
            "By how much the event loop was late at most since this was last read.",
            registry=registry,
        )
        self._pauses = _Read(
            "rpcshare_accept_pauses", "Times that connections had to wait a second for free file descriptors."
        )
        registry.register(self._pauses)
        self._worst_lag = 0.0
        self._lag.set_function(self._take_worst_lag)
        registry.register(_ServiceCollector(service))
        ProcessCollector(registry=registry)
        self._service = service
        self.queues = QueueMetrics(service)
        self.limits = LimitMetrics(limits or CallerLimits())
        registry.register(self.queues)
        registry.register(self.limits)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self.registry)

    async def scraped(self) -> bytes:
        """Return the numbers of the whole server, in that format."""
        return self.text() if self.summed is None else await self.summed.text()

    def count_sessions(self, count: Callable[[], int]) -> None:
        """Have ``count`` asked for how many RPC sessions are open."""
        self._sessions.set_function(count)

    def count_event_streams(self, count: Callable[[], int]) -> None:
        """Have ``count`` asked for how many event streams are open."""
        self._event_streams.set_function(count)

    def count_accept_pauses(self, count: Callable[[], int]) -> None:
        """Have ``count`` asked for how often there were no descriptors for more connections."""
        self._pauses.read = count

    def count_unchecked_authorities(self, count: Callable[[], int]) -> None:
        """Have ``count`` asked for how many CAs of clients there is no revocation list of."""
        Gauge(
            "rpcshare_unchecked_authorities",
            "CAs of clients of which there is no revocation list: what they issued is not checked.",
            registry=self.registry,
        ).set_function(count)

    def observe(self, store: ObservedStore, database: DatabaseLoad) -> None:
        """Tell of what the store and the database are asked for, too."""
        self.registry.register(StoreMetrics(store))
        self.registry.register(DatabaseMetrics(database, self._service))

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._durations.labels(route, method).observe(seconds)
        if status == 401:
            self._auth_failures.labels("http").inc()

    def piece_drawn(self, detail: str, cause: str | None) -> None:
        """Count a piece of a page."""
        self._pieces.labels(detail, cause or "").inc()

    def drawing_process_ended(self, cause: str) -> None:
        """Count a process that has ended before it was told to."""
        self._drawing_ends.labels(cause).inc()

    # The event loop

    @contextlib.contextmanager
    def measuring_lag(self) -> Iterator[None]:
        """Measure meanwhile how late the running event loop is."""
        measuring = asyncio.get_running_loop().create_task(self._measure_lag())
        try:
            yield
        finally:
            measuring.cancel()

    async def _measure_lag(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _LAG_EVERY
            await asyncio.sleep(_LAG_EVERY)
            self._worst_lag = max(self._worst_lag, clock() - due)

    def _take_worst_lag(self) -> float:
        lag, self._worst_lag = self._worst_lag, 0.0
        return lag


class _Read(Collector):
    """A counter that is kept elsewhere."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self.read: Callable[[], int] = int

    def collect(self) -> Iterable[Metric]:
        """Yield it."""
        yield CounterMetricFamily(self._name, self._text, self.read())


class _ServiceCollector(Collector):
    """Reads the numbers of the shares when they are asked for."""

    def __init__(self, service: ShareService) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        done, shares = self._service.activity, self._service.open_shares
        yield CounterMetricFamily("rpcshare_shares_created", "Calls that made a share.", done.created)
        yield CounterMetricFamily("rpcshare_shares_deleted", "Calls that deleted one.", done.deleted)
        yield CounterMetricFamily("rpcshare_syncs", "Syncs made durable.", done.synced)
        yield CounterMetricFamily("rpcshare_synced_bytes", "Bytes of their items.", done.synced_bytes)
        yield CounterMetricFamily(
            "rpcshare_store_errors", "Operations that failed because the store did.", done.store_errors
        )
        yield GaugeMetricFamily("rpcshare_open_shares", "Shares kept in memory.", len(shares))
        yield GaugeMetricFamily(
            "rpcshare_open_share_bytes", "Memory that they take, about.", shares.footprint
        )
        yield GaugeMetricFamily("rpcshare_subscribers", "Subscriptions to shares.", shares.subscribers)
        usage = self._service.store_usage()
        if usage is not None:
            yield GaugeMetricFamily(
                "rpcshare_store_file_bytes", "Size of the embedded store's file.", usage.file_bytes
            )
            yield GaugeMetricFamily(
                "rpcshare_store_wal_bytes", "Size of its write-ahead log.", usage.log_bytes
            )
            yield GaugeMetricFamily(
                "rpcshare_store_disk_free_bytes", "Room left on its disk.", usage.free_bytes
            )


class MetricsMiddleware:
    """Counts requests by the template of their route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        began_at = perf_counter()

        async def counting_send(message: Message) -> None:
            status = message.get("status", 101) if message["type"] in _ANSWERS else None
            if status is not None:
                # The router has noted it by now, if there is any.
                route = getattr(scope.get("route"), "path", "none")
                seconds = perf_counter() - began_at
                self._metrics.answered(route, scope.get("method", "GET"), status, seconds)
            await send(message)

        await self._app(scope, receive, counting_send)


_ANSWERS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
