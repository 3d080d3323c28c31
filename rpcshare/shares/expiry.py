"""Removing shares whose time is over.

A share that expires has an object ``expiry/{time}/{id}``, so that one listing, in the order of time, shows
what is due. It is written before the head says so, and removed behind the share. It decides nothing: the
head does. So every node may remove what is due, and what a crash has left of either does no harm.

A share that is deleted gets such an object, too, where that takes several steps: what a failure or a crash
has left of its content is removed then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from rpcshare.errors import ShareError
from rpcshare.shares import objects
from rpcshare.shares.clock_steps import SteadyClock
from rpcshare.shares.journal import read_head
from rpcshare.storage import ObjectStore, StoreError

__all__ = ["Expiry", "schedule"]

logger = logging.getLogger(__name__)

_LOOK_EVERY = 5.0  # seconds: what other nodes have scheduled is seen by then
_SOONEST = 0.01  # seconds

# Milliseconds that an object stays that the head knows nothing of: the head may just be being written.
_STALE_AFTER = 60_000


async def schedule(store: ObjectStore, share_id: str, expires_at: int) -> None:
    """Have a share found when it expires, at a time in milliseconds since the epoch.

    Raises:
        StoreError: the store failed.
    """
    await store.put(objects.expiry_key(share_id, expires_at), b"")


class Expiry:
    """Has what is due removed, in the background once it is started."""

    def __init__(
        self, store: ObjectStore, clock: Callable[[], int], remove: Callable[[str], Awaitable[None]]
    ) -> None:
        """Look into ``store``, and have ``remove`` take down the share of an id, if it has expired.

        ``remove`` raises ShareError if it cannot, and is asked again later.
        """
        self._store = store
        self._clock = clock
        self._steady = SteadyClock(clock)
        self._is_steady = False
        self._remove = remove
        self._is_news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, *, is_server: bool = False) -> None:
        """Begin to remove what is due, or look again if that has begun: there is something new.

        What ``is_server`` has looked at the clock all the time, and does not believe one that was set.
        """
        self._is_steady = self._is_steady or is_server
        self._is_news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop. What is due then is removed after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def is_certain(self, expires_at: int) -> bool:
        """Whether a share that ends then is over by a clock that has not just been set forward."""
        return expires_at <= (self._steady() if self._is_steady else self._clock())

    async def remove_due(self) -> int | None:
        """Remove all that is due, and return when the next will be, if that is known.

        Raises:
            StoreError: the store failed.
        """
        now = self._steady() if self._is_steady else self._clock()
        async for info in self._store.list(objects.EXPIRY_PREFIX):
            _, time, share_id = info.key.split("/")
            if int(time) > now:
                return int(time)
            try:
                if await self._is_over(share_id, int(time), now):
                    await self._store.delete([info.key])
            except ShareError:
                continue  # the store failed, which has been logged
            except StoreError as exc:
                logger.warning("Could not remove share %s, and will try again: %s", share_id, exc)
        return None

    async def _is_over(self, share_id: str, time: int, now: int) -> bool:
        """Remove a share if it is due, and return whether it was or never will be."""
        found = await read_head(self._store, share_id)
        if found is not None and not found.head.deleted:
            await self._remove(share_id)  # if it has expired, or is deleted and not all is removed
            if found.head.expires_at == time:
                return True
        return time < now - _STALE_AFTER

    async def _run(self) -> None:
        while True:
            self._is_news.clear()
            wait = _LOOK_EVERY
            try:
                following = await self.remove_due()
            except StoreError as exc:
                logger.warning("Could not look for shares that have expired: %s", exc)
            else:
                if following is not None:
                    wait = min(max((following - self._clock()) / 1000, _SOONEST), wait)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._is_news.wait()
