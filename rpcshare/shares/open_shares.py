"""The shares that this node has open, within a budget of memory."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

from rpcshare.shares.context import OpenLog
from rpcshare.shares.log import ShareLog

__all__ = ["IDLE_AFTER", "IDLE_BUDGET", "OpenShares"]

IDLE_AFTER = 5.0
"""Seconds after its last use from which on a share is idle."""

IDLE_BUDGET = 16 * 2**20
"""Bytes of memory for shares that are idle."""


class OpenShares:
    """Opens shares when they are asked for, each once, and lets go of the least recently used.

    One that is in use, busy or watched stays open, over budget or not. What nobody has used for some seconds
    has a smaller budget: a server that has been busy with large shares gives their memory back.
    """

    def __init__(
        self, load: Callable[[str], Awaitable[ShareLog]], budget: int, idle_budget: int = IDLE_BUDGET
    ) -> None:
        """Open with ``load``, which may return an ended log.

        Args:
            load: opens a share.
            budget: bytes of memory for shares that are not in use.
            idle_budget: of that, for shares that have not been used for :data:`IDLE_AFTER`.
        """
        self._load = load
        self._budget = budget
        self._idle_budget = min(budget, idle_budget)
        self._used_at: dict[str, float] = {}  # when the last use of each ended
        self._look: asyncio.TimerHandle | None = None  # whether there are some that are idle
        self._logs: OrderedDict[str, ShareLog] = OrderedDict()  # the least recently used first
        self._weights: dict[str, int] = {}  # the footprint of each when it was last looked at
        self._total = 0  # of _weights
        # Of shares that are being opened: who asks for one meanwhile goes behind who asked before.
        self._opening: dict[str, asyncio.Lock] = {}
        self._queued: Counter[str] = Counter()  # callers at each of these locks
        self._users: dict[str, int] = {}  # callers that use each, or wait for it to load

    def __len__(self) -> int:
        """How many shares are open."""
        return len(self._logs)

    @property
    def footprint(self) -> int:
        """About how many bytes of memory they take."""
        return self._total

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are to all of them."""
        return sum(log.replica.subscribers for log in self._logs.values())

    def watched(self) -> list[ShareLog]:
        """Return the open shares that have subscribers."""
        return [log for log in self._logs.values() if log.replica.subscribers]

    @asynccontextmanager
    async def using(self, share_id: str) -> AsyncIterator[ShareLog]:
        """Open a share if it is not, and keep it open meanwhile. Raises what ``load`` raises."""
        log = await self.take(share_id)
        try:
            yield log
        finally:
            self.let_go(share_id)

    async def take(self, share_id: str) -> ShareLog:
        """Open a share if it is not, and keep it open until :meth:`let_go`. Raises what ``load`` raises."""
        self._users[share_id] = self._users.get(share_id, 0) + 1
        log = self._logs.get(share_id)
        if log is not None and share_id not in self._opening:
            self._logs.move_to_end(share_id)
            return log
        try:
            return await self._opened(share_id)
        except BaseException:
            self.let_go(share_id)
            raise

    def let_go(self, share_id: str) -> None:
        """End one use of a share that was taken."""
        users = self._users.pop(share_id) - 1
        if users:
            self._users[share_id] = users
        if self._total > self._idle_budget:
            self._used_at[share_id] = monotonic()
            if self._total > self._budget:
                self._evict()
            if self._look is None:
                self._look = asyncio.get_running_loop().call_later(IDLE_AFTER, self._let_go_of_idle)

    def add(self, share_id: str, make: Callable[[], ShareLog]) -> None:
        """Open a share with ``make``, unless it is open or being loaded."""
        if share_id not in self._logs and share_id not in self._opening:
            self._keep(share_id, make())

    def resized(self, replica: OpenLog) -> None:
        """Take note of the memory that an open share takes now."""
        if self._is_kept(replica):
            self._weigh(replica)

    def discard(self, replica: OpenLog) -> None:
        """Forget a share that is deleted."""
        if self._is_kept(replica):
            self._remove(replica.share_id)

    async def close(self) -> None:
        """Close all shares: what waits to be written is written first."""
        if self._look is not None:
            self._look.cancel()
        for lock in list(self._opening.values()):
            async with lock:
                pass
        logs = list(self._logs.values())
        await asyncio.gather(*(log.close() for log in logs))
        for share_id in list(self._logs):
            self._remove(share_id)

    async def _opened(self, share_id: str) -> ShareLog:
        """Return a share that is not open, or was not a moment ago, to its callers in their order.

        Syncs take effect in the order in which they get here, so none may overtake those that wait.
        """
        lock = self._opening.setdefault(share_id, asyncio.Lock())
        self._queued[share_id] += 1
        try:
            async with lock:  # which is fair: first come, first served
                log = self._logs.get(share_id)
                if log is None:
                    log = await self._load(share_id)
                    if not log.is_ended:
                        self._keep(share_id, log)
                return log
        finally:
            self._queued[share_id] -= 1
            if not self._queued[share_id]:
                del self._queued[share_id]
                del self._opening[share_id]

    def _keep(self, share_id: str, log: ShareLog) -> None:
        self._logs[share_id] = log
        self._weights[share_id] = 0
        self._weigh(log.replica)

    def _is_kept(self, replica: OpenLog) -> bool:
        # There may be another of the same id by now.
        log = self._logs.get(replica.share_id)
        return log is not None and log.replica is replica

    def _weigh(self, replica: OpenLog) -> None:
        weight = replica.footprint
        self._total += weight - self._weights[replica.share_id]
        self._weights[replica.share_id] = weight

    def _evict(self) -> None:
        for share_id, log in list(self._logs.items()):
            if share_id not in self._users and not log.is_busy:
                self._remove(share_id)
            if self._total <= self._budget:
                return

    def _let_go_of_idle(self) -> None:
        idle_since = monotonic() - IDLE_AFTER
        for share_id, log in list(self._logs.items()):
            if self._total <= self._idle_budget or self._used_at.get(share_id, 0.0) > idle_since:
                break
            if share_id not in self._users and not log.is_busy:
                self._remove(share_id)
        if self._total > self._idle_budget:
            self._look = asyncio.get_running_loop().call_later(IDLE_AFTER, self._let_go_of_idle)
        else:
            self._look = None
            self._used_at.clear()

    def _remove(self, share_id: str) -> None:
        self._used_at.pop(share_id, None)
        self._logs.pop(share_id).detach()
        self._total -= self._weights.pop(share_id)
