"""What a worker knows of the server that it is a part of: the process that started it, and the others.

:mod:`rpcshare.server.workers` starts them; this is the side of the one that serves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry

from rpcshare.auth.audit import AuditLog
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.auth.request_rates import RequestRates
from rpcshare.auth.shared_limits import share_limits
from rpcshare.broadcast import Broadcaster
from rpcshare.broadcast.worker_broadcaster import WorkerBroadcaster
from rpcshare.broadcast.worker_messages import Member, Topic, WorkerMessages, WorkerSockets
from rpcshare.server.summed_metrics import Family, SummedMetrics

__all__ = ["FAILED", "READY", "Failed", "Ready", "Worker"]


class Ready(msgspec.Struct, frozen=True):
    """The sender serves."""


class Failed(msgspec.Struct, frozen=True):
    """The sender could not start."""

    reason: str
    """One line."""
    is_usage: bool
    """Whether the settings are the reason."""


READY: Final = Topic("worker ready", Ready)
FAILED: Final = Topic("worker failed", Failed)


class Worker:
    """One of the processes of a server, in itself."""

    def __init__(
        self,
        boxes: WorkerSockets,
        me: Member,
        *,
        supervisor: int,
        lifeline: int,
        limits_key: bytes,
        departed: list[Family],
    ) -> None:
        """Take what the supervisor has made.

        Args:
            boxes: the inboxes of all processes.
            me: which of them this one is.
            supervisor: the slot of the one that started it.
            lifeline: a descriptor that can be read, to its end, when the supervisor is no more.
            limits_key: which all workers share, for what they tell each other of credentials.
            departed: what workers have counted that have ended.
        """
        self.me = me
        self.limits_key = limits_key
        self._boxes = boxes
        self._supervisor = supervisor
        self._lifeline = lifeline
        self._departed = departed
        self._inbox: WorkerMessages | None = None

    @contextlib.contextmanager
    def among_others(self) -> Iterator[None]:
        """Have a way to the other workers in this context. Needs a running event loop."""
        self._inbox = WorkerMessages(self._boxes, self.me)
        try:
            yield
        finally:
            self._inbox.close()

    @property
    def inbox(self) -> WorkerMessages:
        """The way to the others."""
        if self._inbox is None:
            raise RuntimeError("a worker has an inbox once it is among others")
        return self._inbox

    def broadcaster(self) -> Broadcaster:
        """Return what tells the others, and nobody else, of news."""
        return WorkerBroadcaster(self.inbox)

    def share_limits(self, limits: CallerLimits, rates: RequestRates | None, audit: AuditLog) -> None:
        """Count what callers do together with the others."""
        share_limits(limits, rates, audit, self.inbox)

    def sum_metrics(self, registry: CollectorRegistry) -> SummedMetrics:
        """Return what knows the sum of this worker's numbers and the others'."""
        return SummedMetrics(self.inbox, registry, self._supervisor, self._departed)

    def join(self) -> None:
        """Hear the others from now on: all is there that is to hear them."""
        self.inbox.start()

    def say_ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        self.inbox.report(self._supervisor, READY, Ready())

    def on_orphaned(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the supervisor is no more."""
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(self._lifeline)
            callback()

        loop.add_reader(self._lifeline, end)
