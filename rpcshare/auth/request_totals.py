"""Requests of users, organizations and keys, counted together by all servers that have one database.

Each adds up once a second what it has counted, and learns what the others have: a limit is exceeded by what
they let in meanwhile. A request waits for none of it. While the database fails, each counts for itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from sqlalchemy import Connection, delete

from rpcshare.auth.rate_limits import RateLimit
from rpcshare.database import DatabaseError, upsert
from rpcshare.database.engine import Database
from rpcshare.database.records import request_counts

__all__ = ["RequestTotals"]

logger = logging.getLogger(__name__)

_TICK = 1.0  # seconds
_KEPT = 2  # minutes before this one
_TRIM_EVERY = 60  # times of adding up
_AT_ONCE = 1000  # keys of a transaction


class RequestTotals:
    """What one server tells of its requests, and hears of those of others."""

    def __init__(
        self, database: Database, counted: RateLimit, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Add up what ``counted`` counts in ``database``, whose schema is that of records."""
        self._database = database
        self._counted = counted
        self._clock = clock
        self._own: Counter[str] = Counter()  # not told yet
        self._known: dict[str, int] = {}  # of the minute: what is counted here, by whomever
        self._minute = 0
        self._times = 0
        self._is_well = True

    @asynccontextmanager
    async def sharing(self) -> AsyncIterator[RequestTotals]:
        """Do so in the background."""
        self._counted.on_count = self.note
        task = asyncio.create_task(self._add_up_again_and_again())
        try:
            yield self
        finally:
            self._counted.on_count = None
            task.cancel()
            await asyncio.wait([task])

    def note(self, key: str) -> None:
        """Hear that one more has been counted here."""
        self._own[key] += 1

    async def add_up(self) -> None:
        """Tell what was counted here since the last time, and count what others have told.

        Raises:
            DatabaseError: it failed, and what was counted here is told the next time.
        """
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute, self._known = minute, {}
        own, self._own = self._own, Counter()
        self._times += 1
        is_trimmed = self._times % _TRIM_EVERY == 0
        while own or is_trimmed:
            some = dict(own.most_common(_AT_ONCE))
            try:
                totals = await self._database.write(partial(self._write, some, minute, is_trimmed=is_trimmed))
            except BaseException:
                self._own += own
                raise
            is_trimmed = False
            for key, total in totals.items():
                del own[key]
                known = self._known.get(key, 0) + some[key]
                if total > known:
                    self._counted.add(key, total - known)
                self._known[key] = max(total, known)

    def _write(
        self, own: Mapping[str, int], minute: int, connection: Connection, *, is_trimmed: bool
    ) -> dict[str, int]:
        totals = {}
        for key in sorted(own):  # in one order, so that nobody waits for whom he keeps waiting
            row = upsert.insert(request_counts, is_sqlite=self._database.is_sqlite).values(
                key=key, minute=minute, requests=own[key]
            )
            statement = row.on_conflict_do_update(
                index_elements=["key", "minute"], set_={"requests": request_counts.c.requests + own[key]}
            ).returning(request_counts.c.requests)
            totals[key] = int(connection.execute(statement).scalar_one())
        if is_trimmed:
            connection.execute(delete(request_counts).where(request_counts.c.minute < minute - _KEPT))
        return totals

    async def _add_up_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            try:
                await self.add_up()
            except DatabaseError as exc:
                if self._is_well:
                    logger.warning("Requests are counted by each server for itself: %s", exc)
                self._is_well = False
            else:
                self._is_well = True
