"""The thread that drafts and renders pages, and how many pages may wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rpcshare.auth.rate_limits import network_of

__all__ = ["MAX_WAITING", "MAX_WAITING_OF_ONE", "BusyError", "DrawingQueue"]

# A page of a long session that nobody has looked at yet takes 0.15 s, any other a millisecond.
MAX_WAITING = 64
"""Pages, those that are being drawn included."""
MAX_WAITING_OF_ONE = 8
"""Of those, for one network."""

T = TypeVar("T")


class BusyError(Exception):
    """Too much is being drawn: come again."""

    retry_after = 2  # seconds


class DrawingQueue:
    """Works beside the event loop, for one page after the other.

    It is work for one core: a thread of its own leaves the event loop its turns.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "rpcshare-pages")
        self._waiting: Counter[str] = Counter()  # by network
        self.refused = 0
        """How many pages too many there were."""
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __len__(self) -> int:
        """How many are being drawn or wait."""
        return self._waiting.total()

    @contextmanager
    def waiting(self, address: str) -> Iterator[None]:
        """Let a page for a visitor at ``address`` count meanwhile.

        Raises:
            BusyError: too many pages wait, of that network or in all.
        """
        network = network_of(address)
        if self._waiting[network] >= MAX_WAITING_OF_ONE or len(self) >= MAX_WAITING:
            self.refused += 1
            raise BusyError
        self._waiting[network] += 1
        self._is_empty.clear()
        try:
            yield
        finally:
            self._waiting[network] -= 1
            if not self._waiting[network]:
                del self._waiting[network]
            if not self._waiting:
                self._is_empty.set()

    async def drain(self) -> None:
        """Return when all pages that were asked for are drawn."""
        await self._is_empty.wait()

    async def run(self, draw: Callable[[], T]) -> T:
        """Return what ``draw`` does, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, draw)

    async def draw(self, address: str, draw: Callable[[], T]) -> T:
        """Return what ``draw`` does, for a visitor at ``address``; raises as :meth:`waiting` does."""
        with self.waiting(address):
            return await self.run(draw)
