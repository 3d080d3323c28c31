"""How many processes of agents there may be on one node at once."""

from __future__ import annotations

import asyncio

__all__ = ["ProcessSlots"]


class ProcessSlots:
    """A bounded number of slots. While somebody waits for one, what is idle gives its own back at once."""

    def __init__(self, count: int) -> None:
        """Have ``count`` of them."""
        self._semaphore = asyncio.Semaphore(count)
        self._waiting = 0

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for one."""
        return self._waiting > 0

    async def take(self) -> None:
        """Return once there is one; they are given in the order in which they were asked for."""
        self._waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            self._waiting -= 1

    def give_back(self) -> None:
        """Let another have it."""
        self._semaphore.release()
