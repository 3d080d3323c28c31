"""Opening the database of records once for all of a server that needs it: its users, and the vault."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from rpcshare.config import Settings
from rpcshare.database import DatabaseError
from rpcshare.database.load import DatabaseLoad
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.backends import opened_records
from rpcshare.structured_log import structlog

if TYPE_CHECKING:
    from rpcshare.database.engine import Database

__all__ = ["Records", "records_on_demand"]

logger = structlog.get_logger("rpcshare.server")

_CHECK_LASTS = 5.0  # seconds


class Records:
    """The one database of records of a server, which has one writer of its file at a time."""

    def __init__(
        self, settings: Settings, stack: contextlib.AsyncExitStack, load: DatabaseLoad | None
    ) -> None:
        """Open it when :meth:`opened` is first called, and close it with ``stack``."""
        self._settings = settings
        self._stack = stack
        self._load = load
        self._opening = asyncio.Lock()
        self._database: Database | None = None
        self._is_well = True

    async def opened(self) -> Database:
        """Return the database. Raises ShareError where it cannot be opened; the next call tries again."""
        async with self._opening:
            if self._database is None:
                opening = opened_records(self._settings, self._load)
                self._database = await self._stack.enter_async_context(opening)
        return self._database

    async def check(self) -> None:
        """Return if the database, where this server has opened it, can be read and written now.

        Raises:
            ShareError: STORAGE_UNAVAILABLE.
        """
        if self._database is None:
            return
        try:
            async with asyncio.timeout(_CHECK_LASTS):
                await self._database.check()
        except (DatabaseError, TimeoutError) as exc:
            if self._is_well:
                logger.warning("users and the vault are unavailable", reason=str(exc) or "it does not answer")
            self._is_well = False
            message = "Storage unavailable: the database of users and of the vault"
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, message, retry_after=_CHECK_LASTS) from exc
        self._is_well = True


@contextlib.asynccontextmanager
async def records_on_demand(settings: Settings, load: DatabaseLoad | None = None) -> AsyncIterator[Records]:
    """Yield what opens the database of records when it is first needed."""
    async with contextlib.AsyncExitStack() as stack:
        yield Records(settings, stack, load)
