"""The shares that this node has open, within a budget of memory."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rpcshare.shares.log import ShareLog

__all__ = ["OpenShares"]


class OpenShares:
    """Opens shares when they are asked for, each once, and lets go of the least recently used.

    One that is in use, busy or watched stays open, over budget or not.
    """

    def __init__(self, load: Callable[[str], Awaitable[ShareLog]], budget: int) -> None:
        """Open with ``load``, which may return an ended log, up to ``budget`` bytes of memory."""
        self._load = load
        self._budget = budget
        self._logs: OrderedDict[str, ShareLog] = OrderedDict()  # the least recently used first
        self._weights: dict[str, int] = {}  # the footprint of each when it was last looked at
        self._total = 0  # of _weights
        self._loading: dict[str, asyncio.Task[ShareLog]] = {}
        self._users: Counter[str] = Counter()  # callers that use each, or wait for it to load

    def watched(self) -> list[ShareLog]:
        """Return the open shares that have subscribers."""
        return [log for log in self._logs.values() if log.is_watched]

    @asynccontextmanager
    async def using(self, share_id: str) -> AsyncIterator[ShareLog]:
        """Open a share if it is not, and keep it open meanwhile. Raises what ``load`` raises."""
        self._users[share_id] += 1
        try:
            log = self._logs.get(share_id)
            if log is None:
                log = await self._loaded(share_id)
            else:
                self._logs.move_to_end(share_id)
            yield log
        finally:
            self._users[share_id] -= 1
            if not self._users[share_id]:
                del self._users[share_id]
            self._evict()

    def add(self, share_id: str, make: Callable[[], ShareLog]) -> None:
        """Open a share with ``make``, unless it is open or being loaded."""
        if share_id not in self._logs and share_id not in self._loading:
            self._keep(share_id, make())

    def resized(self, log: object, share_id: str, footprint: int) -> None:
        """Take note of the memory that ``log`` takes now."""
        if self._logs.get(share_id) is log:
            self._total += footprint - self._weights[share_id]
            self._weights[share_id] = footprint

    def discard(self, log: object, share_id: str) -> None:
        """Forget ``log``, which has ended."""
        if self._logs.get(share_id) is log:
            self._remove(share_id)

    async def close(self) -> None:
        """Close all shares: what waits to be written is written first."""
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        logs = list(self._logs.values())
        await asyncio.gather(*(log.close() for log in logs))
        for share_id in list(self._logs):
            self._remove(share_id)

    async def _loaded(self, share_id: str) -> ShareLog:
        task = self._loading.get(share_id)
        if task is None:
            task = self._loading[share_id] = asyncio.create_task(self._load_one(share_id))
            # Its callers may all be cancelled; then nobody asks for its exception.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(task)

    async def _load_one(self, share_id: str) -> ShareLog:
        try:
            log = await self._load(share_id)
        finally:
            del self._loading[share_id]
        if not log.is_ended:
            self._keep(share_id, log)
        return log

    def _keep(self, share_id: str, log: ShareLog) -> None:
        self._logs[share_id] = log
        self._weights[share_id] = 0
        self.resized(log, share_id, log.footprint)

    def _evict(self) -> None:
        if self._total <= self._budget:
            return
        for share_id, log in list(self._logs.items()):
            if share_id not in self._users and not log.is_busy:
                self._remove(share_id)
            if self._total <= self._budget:
                return

    def _remove(self, share_id: str) -> None:
        self._logs.pop(share_id).detach()
        self._total -= self._weights.pop(share_id)
