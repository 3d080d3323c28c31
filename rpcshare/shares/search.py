"""What a search finds, and what it searches."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from rpcshare.database import DatabaseError, DatabaseLocation
from rpcshare.database.load import DatabaseLoad
from rpcshare.process_directories import process_directory

if TYPE_CHECKING:
    from rpcshare.shares.search_index import SearchIndex

__all__ = ["Hit", "SearchPage", "SearchSettings", "open_index", "temporary_index"]


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One place in a share that has what was looked for."""

    share_id: str = msgspec.field(name="shareID")
    title: str
    """Of the share."""
    message_id: str | None = msgspec.field(name="messageID")
    """None: it is in the title, or in a diff of the whole session."""
    part_id: str | None = msgspec.field(name="partID")
    snippet: str
    """Some of the text around it."""
    time: int
    """Of the message, in milliseconds since the epoch."""

    def __repr__(self) -> str:
        """Leave out what users wrote."""
        return f"{type(self).__name__}(share_id={self.share_id!r}, part_id={self.part_id!r})"


class SearchPage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Some of the hits, the best first."""

    hits: list[Hit]
    cursor: str | None
    """What to ask for the next with; None if there are no more."""
    indexing: bool = False
    """Not all shares have been indexed yet, so there may be more."""


class SearchSettings(msgspec.Struct, frozen=True):
    """How shares are indexed."""

    opened: Callable[[], Awaitable["SearchIndex"]]
    """Opens the index, which is closed with the service; may raise DatabaseError."""
    compare_every: float = 300.0
    """Seconds between comparisons of the index with the store, for what no node has told of."""
    is_of_node: bool = False
    """Whether other nodes have a database of their own: then nodes tell each other what has changed."""
    waits: bool = False
    """Whether the index is opened by who lists or searches first, or when the server has run a while."""
    is_temporary: bool = False
    """Whether the database is of this service alone, and filled when somebody lists or searches."""
    close: Callable[[], None] = lambda: None
    """Called when the index is closed."""


def temporary_index() -> SearchSettings:
    """Return settings for an index in a folder of its own, which is removed when it is closed."""
    folders: list[TemporaryDirectory[str]] = []

    async def opened() -> "SearchIndex":
        folders.append(process_directory("index"))
        return await open_index(DatabaseLocation("", Path(folders[-1].name, "database.sqlite3")))

    def close() -> None:
        while folders:
            folders.pop().cleanup()

    return SearchSettings(opened, is_temporary=True, close=close)


async def open_index(location: DatabaseLocation, load: DatabaseLoad | None = None) -> "SearchIndex":
    """Open the index in a database, whose statements are counted in ``load``.

    Raises:
        DatabaseError: it cannot be opened; a package that it needs may be missing.
    """
    try:
        # Half a second of imports, which a server that is never searched, and a client, need not. In a
        # thread, they let the event loop have its turns.
        await asyncio.to_thread(import_module, "rpcshare.shares.search_index")
        from rpcshare.database.engine import Database  # noqa: PLC0415
        from rpcshare.shares.search_index import SearchIndex  # noqa: PLC0415

        return SearchIndex(await Database.open(location, load))
    except ModuleNotFoundError as exc:
        extra = "postgres" if exc.name == "asyncpg" else "server"
        raise DatabaseError(f"it needs the package {exc.name}: pip install 'rpcshare[{extra}]'") from exc
