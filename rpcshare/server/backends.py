"""The store, the broadcaster and the database of a server, opened as the settings say.

All of this raises ConfigError where a URL in the settings names nothing that there is, and ShareError where
what it names cannot be reached or used.
"""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from rpcshare.auth.subject_sources import SubjectSources
from rpcshare.auth.unprefixed_owners import UnprefixedOwners, kept_unprefixed_owners
from rpcshare.broadcast import Broadcaster, LocalBroadcaster, open_broadcaster
from rpcshare.config import ConfigError, Settings
from rpcshare.database import DatabaseError, DatabaseLocation, check_not_newer, parse_location
from rpcshare.database.load import DatabaseLoad
from rpcshare.database.schema_version import RECORDS
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.process_directories import process_directory
from rpcshare.shares.rollback import MARKS_FILE, HighWaterMarks, MarksError, RollbackCheckedStore
from rpcshare.shares.search import SearchSettings, open_index
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import (
    MissingKeysError,
    ObjectStore,
    StoreError,
    check_needs_no_keys,
    note_shared_secret,
    open_store,
    store_identity,
)
from rpcshare.storage.conditional_write_probe import UnconditionalWritesError, check_conditional_writes
from rpcshare.storage.observed import ObservedStore
from rpcshare.structured_log import structlog
from rpcshare.tracing import Tracing

if TYPE_CHECKING:
    from rpcshare.database.engine import Database
    from rpcshare.server.worker import Worker

__all__ = [
    "may_be_shared",
    "opened_broadcaster",
    "opened_database",
    "opened_records",
    "opened_store",
    "subject_sources",
    "warn_of_another_shared_secret",
]

logger = structlog.get_logger("rpcshare.server")

# Seconds between comparisons of the search index with the store: where every server tells of its writes, and
# where each has an index of its own.
_COMPARE_EVERY = 300.0
_COMPARE_OFTEN = 5.0


def _database_location(settings: Settings) -> DatabaseLocation:
    """Return where the database is, if this server can use it.

    Raises:
        ConfigError: the URL names none. ShareError: it is a newer server's, or no database.
    """
    try:
        location = parse_location(settings.database_url)
    except ValueError as exc:
        raise ConfigError(f"--database: {exc}") from exc
    try:
        check_not_newer(location)
    except DatabaseError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
    return location


async def _require_database(location: DatabaseLocation) -> None:
    """Refuse to begin without a database that was named. One in a file is opened when it is needed."""
    try:
        await (await open_index(location)).database.close()
    except DatabaseError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc


@contextlib.asynccontextmanager
async def opened_database(
    settings: Settings, load: DatabaseLoad | None = None
) -> AsyncIterator[SearchSettings]:
    """Return how shares are indexed. A store in memory has a database for as long as itself.

    The statements of the database are counted in ``load``.
    """
    with contextlib.ExitStack() as stack:
        if settings.store_url.startswith("memory:") and settings.database is None:
            folder = stack.enter_context(process_directory("database"))
            location = parse_location(f"sqlite:///{quote(folder)}/database.sqlite3")
        else:
            location = _database_location(settings)
        if location.path is None:
            await _require_database(location)
        # Workers have one database; servers whose database is a file have one each, and must look for what
        # others have written.
        is_alone = location.path is None or settings.store is None or settings.store.startswith("memory:")
        every = _COMPARE_EVERY if is_alone else _COMPARE_OFTEN
        opened = partial(open_index, location, load)
        yield SearchSettings(opened, compare_every=every, is_of_node=not is_alone, waits=True)


@contextlib.asynccontextmanager
async def opened_records(settings: Settings, load: DatabaseLoad | None = None) -> AsyncIterator["Database"]:
    """Open the database of records (:mod:`rpcshare.database.records`), which whoever needs it opens once."""
    from rpcshare.database.engine import Database  # noqa: PLC0415 -- a server without records needs none of it

    try:
        location = parse_location(settings.records_url)
    except ValueError as exc:
        raise ConfigError(f"--database: {exc}") from exc
    try:
        check_not_newer(location, RECORDS)
        database = await Database.open(location, load, RECORDS)
    except DatabaseError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def opened_store(
    settings: Settings, tracing: Tracing | None = None
) -> AsyncIterator[tuple[ObjectStore, ObservedStore]]:
    """Open the store, checked for what this server needs of it: its keys, and conditional writes.

    Yields:
        The store, and what measures it.
    """
    try:
        opened = await open_store(
            settings.store_url,
            key_file=settings.encryption_key_file,
            allow_plain=settings.encryption_allow_plain,
            takes_turns=settings.workers > 1,
        )
    except ValueError as exc:
        raise ConfigError(f"--store: {exc}") from exc
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
    store: ObjectStore = (observed := ObservedStore(opened, tracing))
    try:
        if settings.encryption_key_file is None:
            await _require_readable(store)
        if may_be_shared(settings):
            await _require_conditional_writes(store, settings)
        if not settings.store_url.startswith("memory:"):
            store = _checked_for_rollback(store, settings.data_dir / MARKS_FILE)
        yield store, observed
    finally:
        await store.close()


async def _require_readable(store: ObjectStore) -> None:
    try:
        await check_needs_no_keys(store)
    except MissingKeysError as exc:
        raise ConfigError(str(exc)) from exc
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc


async def warn_of_another_shared_secret(store: ObjectStore, credentials: Credentials) -> None:
    """Warn if servers with another shared secret have used the store."""
    try:
        is_same = await note_shared_secret(store, credentials.fingerprint())
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
    if not is_same:
        logger.warning(
            "The store was served with another shared secret before. Secrets of shares, view tokens and "
            "sign-ins that come from there are refused here. Servers on one store need one --shared-secret"
        )


def _checked_for_rollback(store: ObjectStore, path: Path) -> ObjectStore:
    try:
        return RollbackCheckedStore(store, HighWaterMarks.open(path))
    except MarksError as exc:
        logger.warning("older objects put back into the store go unnoticed", reason=str(exc))
        return store


def may_be_shared(settings: Settings) -> bool:
    """Whether others may write to the store: other workers, or servers if it was named."""
    return settings.workers > 1 or (settings.store is not None and not settings.store.startswith("memory:"))


async def _require_conditional_writes(store: ObjectStore, settings: Settings) -> None:
    """Refuse to be one of several writers of a store that would let them overwrite each other."""
    try:
        await check_conditional_writes(store)
    except UnconditionalWritesError as exc:
        if settings.workers > 1 or not settings.broadcast.startswith("local:"):
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
        logger.warning("this must be the only server on the store", reason=str(exc))
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc


@contextlib.asynccontextmanager
async def opened_broadcaster(
    settings: Settings, worker: "Worker | None", store: ObjectStore
) -> AsyncIterator[Broadcaster]:
    """Open the way by which servers, and workers, hear of each other's writes."""
    try:
        identity = await store_identity(store)
        broadcaster = await open_broadcaster(settings.broadcast, store_id=identity.id, secret=identity.secret)
    except ValueError as exc:
        raise ConfigError(f"--broadcast: {exc}") from exc
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
    if worker is not None and isinstance(broadcaster, LocalBroadcaster):
        broadcaster = worker.broadcaster()  # local is what is on this machine
    try:
        yield broadcaster
    finally:
        await broadcaster.close()


async def subject_sources(store: ObjectStore, settings: Settings) -> SubjectSources:
    """Return which sources' subjects are the same, as the settings and the store have it.

    Raises:
        ConfigError: the settings name an issuer that there is not.
        ShareError: the store failed.
    """
    united, chosen = settings.sources("same_subjects"), settings.sources("unprefixed_subjects")
    if chosen:
        return SubjectSources(united, UnprefixedOwners(sources=list(chosen)))
    outside = settings.outside_sources
    try:
        return SubjectSources(united, await kept_unprefixed_owners(store, outside))
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
