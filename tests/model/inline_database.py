"""A database whose work is done at once, on the event loop: what happens does not depend on threads."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TypeVar

from sqlalchemy import Connection, Engine

from rpcshare.database.engine import Database, _read_in_thread, _write_in_thread
from rpcshare.database.location import parse_location
from rpcshare.shares.search_index import SearchIndex

__all__ = ["InlineDatabase", "open_inline"]

T = TypeVar("T")


class InlineDatabase(Database):
    """SQLite, without threads."""

    async def read(self, work: Callable[[Connection], T], *, limit: float | None = None) -> T:
        """Do as the base class."""
        await asyncio.sleep(0)
        assert isinstance(self._engine, Engine)
        return _read_in_thread(self._engine, work, None)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do as the base class."""
        await asyncio.sleep(0)
        assert isinstance(self._engine, Engine)
        return _write_in_thread(self._engine, work, Event())

    async def close(self) -> None:
        """Close it: nothing is under way."""
        assert isinstance(self._engine, Engine)
        self._engine.dispose()


async def open_inline(path: Path) -> SearchIndex:
    """Open the index in a file."""
    return SearchIndex(await InlineDatabase.open(parse_location(f"sqlite:///{path}")))
