"""Deleting what is superfluous, once nobody can be in the middle of reading or relying on it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import count

from rpcshare.storage import StoreError

__all__ = ["DelayedDeletes"]

logger = logging.getLogger(__name__)


class DelayedDeletes:
    """Runs deletions after a grace period, in the background.

    Nothing depends on them: what is still waiting at :meth:`close`, or fails, is garbage that the
    next opening of its share finds again, or a tombstone of a few bytes.
    """

    def __init__(self, grace: float) -> None:
        """Wait ``grace`` seconds before each deletion."""
        self._grace = grace
        self._numbers = count()
        self._waiting: dict[int, asyncio.TimerHandle] = {}
        self._running: set[asyncio.Task[None]] = set()

    def later(self, share_id: str, delete: Callable[[], Awaitable[None]]) -> None:
        """Call ``delete``, which removes something of ``share_id``, after the grace period."""
        number = next(self._numbers)

        def start() -> None:
            del self._waiting[number]
            task = asyncio.create_task(_run(share_id, delete))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        self._waiting[number] = asyncio.get_running_loop().call_later(self._grace, start)

    async def close(self) -> None:
        """Give up what is waiting, and finish what has begun."""
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        await asyncio.gather(*self._running)


async def _run(share_id: str, delete: Callable[[], Awaitable[None]]) -> None:
    try:
        await delete()
    except StoreError as exc:
        logger.warning("Could not delete what share %s no longer needs: %s", share_id, exc)
