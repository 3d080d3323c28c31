"""Who searches when: few at once, and of each caller one, so that nobody's searches delay those of others."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from time import monotonic

from rpcshare.errors import ErrorCode, ShareError

__all__ = ["SearchTurns", "at_round_times"]

_AT_ONCE = 2
_PATIENCE = 5.0  # seconds
_ROUND = 0.025  # seconds


@asynccontextmanager
async def at_round_times(*, wanted: bool) -> AsyncIterator[None]:
    """Let what is done end at the next multiple of 25 ms after its beginning, if that is ``wanted``.

    Whoever searches shares of his own cannot tell then by the time how many others have his words.
    """
    began = monotonic()
    try:
        yield
    finally:
        if wanted:
            await asyncio.sleep(-(monotonic() - began) % _ROUND)


class SearchTurns:
    """Hands out turns to search."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(_AT_ONCE)
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}  # and how many have, or want, it

    @asynccontextmanager
    async def turn(self, who: Hashable) -> AsyncIterator[None]:
        """Wait for a turn.

        Raises:
            ShareError: RATE_LIMITED: that would take too long.
        """
        lock, waiting = self._locks.get(who, (asyncio.Lock(), 0))
        self._locks[who] = lock, waiting + 1
        try:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await lock.acquire()
                    try:
                        await self._all.acquire()
                    except BaseException:
                        lock.release()
                        raise
            except TimeoutError:
                message = "Too many searches are under way: try again in a few seconds"
                raise ShareError(ErrorCode.RATE_LIMITED, message, retry_after=_PATIENCE) from None
            try:
                yield
            finally:
                self._all.release()
                lock.release()
        finally:
            lock, waiting = self._locks.pop(who)
            if waiting > 1:
                self._locks[who] = lock, waiting - 1
