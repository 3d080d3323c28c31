"""The shares that this node has open, within a budget of memory."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rpcshare.shares.context import WatchedShare
from rpcshare.shares.open_share import OpenShare

__all__ = ["IDLE_AFTER", "IDLE_BUDGET", "ShareCache"]

IDLE_AFTER = 5.0
"""Seconds after its last use from which on a share is idle."""

IDLE_BUDGET = 16 * 2**20
"""Bytes of memory for shares that are idle."""


class ShareCache:
    """Opens shares when they are asked for, each once, and lets go of the least recently used.

    One that is in use, busy or watched stays open, over budget or not. What nobody has used for some seconds
    has a smaller budget: a server that has been busy with large shares gives their memory back.
    """

    def __init__(
        self, load: Callable[[str], Awaitable[OpenShare]], budget: int, idle_budget: int = IDLE_BUDGET
    ) -> None:
        """Open with ``load``, which may return an ended share.

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
        self._open: OrderedDict[str, OpenShare] = OrderedDict()  # the least recently used first
        self._weights: dict[str, int] = {}  # the footprint of each when it was last looked at
        self._total = 0  # of _weights
        self._reserved = 0  # bytes of the budget
        # Of shares that are being opened: who asks for one meanwhile goes behind who asked before.
        self._opening: dict[str, asyncio.Lock] = {}
        self._queued: Counter[str] = Counter()  # callers at each of these locks
        self._users: dict[str, int] = {}  # callers that use each, or wait for it to load

    def __len__(self) -> int:
        """How many shares are open."""
        return len(self._open)

    @property
    def footprint(self) -> int:
        """About how many bytes of memory they take."""
        return self._total

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are to all of them."""
        return sum(share.subscribers for share in self._open.values())

    @property
    def waiting_writes(self) -> int:
        """How many syncs and deletions wait to be written, in all of them."""
        return sum(share.waiting_writes for share in self._open.values())

    def watched(self) -> list[OpenShare]:
        """Return the open shares that have subscribers."""
        return [share for share in self._open.values() if share.subscribers]

    def find(self, share_id: str) -> OpenShare | None:
        """Return a share if it is open. It may be closed as soon as anything is awaited."""
        return self._open.get(share_id)

    async def take(self, share_id: str) -> OpenShare:
        """Open a share if it is not, and keep it open until :meth:`let_go`. Raises what ``load`` raises."""
        if (share := self.take_at_once(share_id)) is not None:
            return share
        self._users[share_id] = self._users.get(share_id, 0) + 1
        try:
            return await self._opened(share_id)
        except BaseException:
            self.let_go(share_id)
            raise

    def take_at_once(self, share_id: str) -> OpenShare | None:
        """Do what :meth:`take` does, if that needs no waiting; else return None."""
        share = self._open.get(share_id)
        if share is None or share_id in self._opening:
            return None
        self._users[share_id] = self._users.get(share_id, 0) + 1
        self._open.move_to_end(share_id)
        return share

    def let_go(self, share_id: str) -> None:
        """End one use of a share that was taken."""
        users = self._users.pop(share_id) - 1
        if users:
            self._users[share_id] = users
        if self._total > self._idle_budget:
            self._used_at[share_id] = monotonic()
            if self._total > self._budget - self._reserved:
                self._evict()
            if self._look is None:
                self._look = asyncio.get_running_loop().call_later(IDLE_AFTER, self._let_go_of_idle)

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Keep ``size`` bytes of the budget free meanwhile, for a share that is about to grow by them."""
        self._reserved += size
        try:
            if self._total > self._budget - self._reserved:
                self._evict()
            yield
        finally:
            self._reserved -= size

    def add(self, share_id: str, make: Callable[[], OpenShare]) -> None:
        """Open a share with ``make``, unless it is open or being loaded."""
        if share_id not in self._open and share_id not in self._opening:
            self._keep(share_id, make())

    def resized(self, share: WatchedShare) -> None:
        """Take note of the memory that an open share takes now."""
        if self._is_kept(share):
            self._weigh(share)

    def discard(self, share: WatchedShare) -> None:
        """Forget a share that is deleted."""
        if self._is_kept(share):
            self._remove(share.share_id)

    async def close(self) -> None:
        """Close all shares: what waits to be written is written first."""
        if self._look is not None:
            self._look.cancel()
        for lock in list(self._opening.values()):
            async with lock:
                pass
        shares = list(self._open.values())
        await asyncio.gather(*(share.close() for share in shares))
        for share_id in list(self._open):
            self._remove(share_id)

    async def _opened(self, share_id: str) -> OpenShare:
        """Return a share that is not open, or was not a moment ago, to its callers in their order.

        Syncs take effect in the order in which they get here, so none may overtake those that wait.
        """
        lock = self._opening.setdefault(share_id, asyncio.Lock())
        self._queued[share_id] += 1
        try:
            async with lock:  # which is fair: first come, first served
                share = self._open.get(share_id)
                if share is None:
                    share = await self._load(share_id)
                    if not share.is_ended:
                        self._keep(share_id, share)
                return share
        finally:
            self._queued[share_id] -= 1
            if not self._queued[share_id]:
                del self._queued[share_id]
                del self._opening[share_id]

    def _keep(self, share_id: str, share: OpenShare) -> None:
        self._open[share_id] = share
        self._weights[share_id] = 0
        self._weigh(share)

    def _is_kept(self, share: WatchedShare) -> bool:
        # There may be another of the same id by now.
        return self._open.get(share.share_id) is share

    def _weigh(self, share: WatchedShare) -> None:
        weight = share.footprint
        self._total += weight - self._weights[share.share_id]
        self._weights[share.share_id] = weight

    def _evict(self) -> None:
        for share_id, share in list(self._open.items()):
            if share_id not in self._users and not share.is_busy:
                self._remove(share_id)
            if self._total <= self._budget - self._reserved:
                return

    def _let_go_of_idle(self) -> None:
        idle_since = monotonic() - IDLE_AFTER
        for share_id, share in list(self._open.items()):
            if self._total <= self._idle_budget or self._used_at.get(share_id, 0.0) > idle_since:
                break
            if share_id not in self._users and not share.is_busy:
                self._remove(share_id)
        if self._total > self._idle_budget:
            self._look = asyncio.get_running_loop().call_later(IDLE_AFTER, self._let_go_of_idle)
        else:
            self._look = None
            self._used_at.clear()

    def _remove(self, share_id: str) -> None:
        self._used_at.pop(share_id, None)
        self._open.pop(share_id).detach()
        self._total -= self._weights.pop(share_id)
