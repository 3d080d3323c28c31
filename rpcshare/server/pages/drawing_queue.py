"""The thread that draws pages, and how many may wait for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rpcshare.auth.rate_limits import network_of

__all__ = ["MAX_WAITING", "MAX_WAITING_OF_ONE", "BusyError", "DrawingQueue"]

# A page of a long session that nobody has looked at yet takes 0.15 s, any other a millisecond.
MAX_WAITING = 64
"""Drawings, the one under way included."""
MAX_WAITING_OF_ONE = 8
"""Of those, for one network."""

T = TypeVar("T")


class BusyError(Exception):
    """Too much is being drawn: come again."""

    retry_after = 2  # seconds


class DrawingQueue:
    """Draws beside the event loop, one page after the other.

    Drawing is work for one core: a thread of its own leaves the event loop its turns.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "rpcshare-pages")
        self._waiting: Counter[str] = Counter()  # by network

    def __len__(self) -> int:
        """How many are being drawn or wait."""
        return self._waiting.total()

    async def draw(self, address: str, draw: Callable[[], T]) -> T:
        """Return what ``draw`` does, for a visitor at ``address``.

        Raises:
            BusyError: too many drawings wait, of that network or in all.
        """
        network = network_of(address)
        if self._waiting[network] >= MAX_WAITING_OF_ONE or len(self) >= MAX_WAITING:
            raise BusyError
        self._waiting[network] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, draw)
        finally:
            self._waiting[network] -= 1
            if not self._waiting[network]:
                del self._waiting[network]
