"""Objects in a SQLite file: the store that needs nothing else to be running."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Self, TypeVar

from rpcshare.storage.bulk_insert import NewObject
from rpcshare.storage.fair_lock import FairLock
from rpcshare.storage.group_commit import GroupCommit
from rpcshare.storage.keys import key_range
from rpcshare.storage.sqlite_file import open_reader, open_writer, write_something
from rpcshare.storage.sqlite_guard import FileGuard
from rpcshare.storage.store import (
    ObjectInfo,
    PreconditionFailedError,
    Put,
    StoredObject,
    StoreError,
    StoreUsage,
)

__all__ = ["SqliteStore"]

T = TypeVar("T")

_WRITE_EVERY = 1.0  # seconds, for who asks whether it can be written

_READERS = 2  # so that a small read need not wait for a large one
_PAGE_OBJECTS = 500
_PAGE_BYTES = 4 * 2**20  # of bodies; the one that reaches this is the last of its page


class SqliteStore:
    """An :class:`~rpcshare.storage.ObjectStore` in a SQLite file, which processes may share.

    Writes wait for each other in a :class:`~rpcshare.storage.group_commit.GroupCommit`, in the order in which
    they are asked for, awaited or not. Reads have connections and threads of their own; with a write-ahead
    log neither waits for the other.
    """

    is_atomic = True

    def __init__(
        self, name: str, writer: GroupCommit, readers: Sequence[sqlite3.Connection], guard: FileGuard
    ) -> None:
        """For :meth:`open`, which makes what this takes."""
        self._name = name  # for errors
        self._guard = guard
        self._written_at = -_WRITE_EVERY  # when check() wrote last, on the clock of monotonic()
        self._writer = writer
        self._readers = readers
        self._idle_readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for reader in readers:
            self._idle_readers.put(reader)
        self._reading = ThreadPoolExecutor(len(readers), thread_name_prefix="sqlite-reader")
        self._closed = False

    @classmethod
    async def open(cls, path: Path, *, busy_timeout: float = 5.0, takes_turns: bool = False) -> Self:
        """Open the store in the file at ``path``; make file and directory if there are none.

        Args:
            path: the file. SQLite keeps two more beside it, named ``-wal`` and ``-shm``.
            busy_timeout: seconds to wait, now and later, for a lock that another process holds.
            takes_turns: write by turns with the others that do, as suits those that write all the time.

        Raises:
            StoreError: the file cannot be read and written, holds something else, or is of a newer
                version.
        """
        writer, readers, guard = await asyncio.to_thread(_open_connections, path, busy_timeout)
        name = f"the store {path}"
        turns = _open_turns(path, writer, readers) if takes_turns else None
        verify = guard.require_same_files
        return cls(name, GroupCommit(writer, name=name, verify=verify, turns=turns), readers, guard)

    @property
    def commits(self) -> int:
        """How many transactions have been committed: writes that came together share one."""
        return self._writer.commits

    async def get(self, key: str) -> StoredObject | None:
        """Return the object at ``key``, or None if there is none."""
        return await self._read(partial(_get, key))

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> Awaitable[str]:
        """Write ``body`` at ``key`` if the conditions hold; await its etag: then it is durable."""
        if if_absent and if_match is None:
            return self._writer.run(NewObject(key, body))
        return self._writer.run(partial(_put, key, body, if_absent, if_match))

    def delete(self, keys: Sequence[str]) -> Awaitable[None]:
        """Remove the objects at ``keys``, all or none; one that is not there is no error."""
        return self._writer.run(partial(_delete, tuple(keys)))

    def apply(self, puts: Sequence[Put], deleted: Sequence[str]) -> Awaitable[None]:
        """Write ``puts`` and remove the objects at ``deleted``, all or none.

        Raises:
            PreconditionFailedError: a condition does not hold.
        """
        return self._writer.run(partial(_apply, tuple(puts), tuple(deleted)))

    def usage(self) -> StoreUsage:
        """Return how much room the file takes, its log takes, and its disk has."""
        return self._guard.usage()

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is stored under ``prefix``, in key order, from behind ``start_after``."""
        while page := await self._read(partial(_list_page, prefix, start_after)):
            for info in page:
                yield info
            start_after = page[-1].key

    async def scan(self, prefix: str, *, start_after: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects under ``prefix`` with their bodies, in key order.

        Nothing is held between pages, neither a lock nor a view of the store: each shows what is
        there when it is read.
        """
        while page := await self._read(partial(_scan_page, prefix, start_after)):
            start_after = page[-1].key
            page.reverse()
            while page:  # what has been taken is not held any more: it may be large
                yield page.pop()

    async def check(self) -> None:
        """Return if the file can be read and written now, and there is room for more.

        It is written to at most once a second, or whenever the last write has failed.

        Raises:
            StoreError: it cannot.
        """
        if self._closed:
            raise StoreError(f"{self._name} is closed")
        self._guard.require_same_files()
        self._guard.require_room()
        await self._read(_probe)
        is_recent = monotonic() - self._written_at < _WRITE_EVERY
        await self._writer.run(_probe if is_recent and not self._writer.has_failed else write_something)
        if not is_recent:
            self._written_at = monotonic()

    async def close(self) -> None:
        """Finish what is under way, copy the write-ahead log into the file, and close it.

        Raises:
            StoreError: the log could not be copied. It is read when the file is next opened.
        """
        if not self._closed:
            self._closed = True
            self._writer.end()
            await asyncio.to_thread(self._close_connections)

    def _close_connections(self) -> None:
        self._reading.shutdown()
        for reader in self._readers:
            reader.close()
        self._writer.close()

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreError(f"{self._name} is closed")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._reading, self._with_idle_reader, query)
        except sqlite3.Error as exc:
            raise StoreError(f"{self._name}: {exc}", reason=str(exc)) from exc

    def _with_idle_reader(self, query: Callable[[sqlite3.Connection], T]) -> T:
        reader = self._idle_readers.get_nowait()  # as many threads as readers: one is idle
        try:
            return query(reader)
        finally:
            self._idle_readers.put(reader)


def _open_connections(
    path: Path, busy_timeout: float
) -> tuple[sqlite3.Connection, Sequence[sqlite3.Connection], FileGuard]:
    with ExitStack() as opened:
        writer = opened.enter_context(closing(open_writer(path, busy_timeout=busy_timeout)))
        readers = [
            opened.enter_context(closing(open_reader(path, busy_timeout=busy_timeout)))
            for _ in range(_READERS)
        ]
        guard = FileGuard(path, writer)
        opened.pop_all()  # all is well: nothing is to be closed
    return writer, readers, guard


def _open_turns(path: Path, writer: sqlite3.Connection, readers: Sequence[sqlite3.Connection]) -> FairLock:
    try:
        return FairLock(path)
    except OSError as exc:
        for connection in (writer, *readers):
            connection.close()
        raise StoreError(f"cannot open the store {path}: {exc.strerror}") from exc


# What runs on the threads: one statement each, or several inside the writer's transaction.


def _get(key: str, connection: sqlite3.Connection) -> StoredObject | None:
    row = connection.execute("SELECT body, id FROM objects WHERE key = ?", (key,)).fetchone()
    return StoredObject(key, row[0], str(row[1])) if row else None


def _put(
    key: str,
    body: bytes,
    if_absent: bool,
    if_match: str | None,
    connection: sqlite3.Connection,
) -> str:
    if if_match is not None:
        row = connection.execute("SELECT id FROM objects WHERE key = ?", (key,)).fetchone()
        if if_absent or row is None or str(row[0]) != if_match:
            raise PreconditionFailedError(f"the object at {key} is not the expected one")
    # REPLACE takes the old row away and inserts a new one: a new id, hence a new etag.
    cursor = connection.execute("REPLACE INTO objects (key, body) VALUES (?, ?)", (key, body))
    return str(cursor.lastrowid)


def _apply(puts: Sequence[Put], deleted: Sequence[str], connection: sqlite3.Connection) -> None:
    # What is refused must have changed nothing: others share the transaction.
    for put in puts:
        row = connection.execute("SELECT id FROM objects WHERE key = ?", (put.key,)).fetchone()
        is_other = put.if_match is not None and (row is None or str(row[0]) != put.if_match)
        if is_other or (put.if_absent and row is not None):
            raise PreconditionFailedError(f"the object at {put.key} is not the expected one")
    _delete(deleted, connection)
    for put in puts:
        connection.execute("REPLACE INTO objects (key, body) VALUES (?, ?)", (put.key, put.body))


def _delete(keys: Sequence[str], connection: sqlite3.Connection) -> None:
    connection.executemany("DELETE FROM objects WHERE key = ?", ((key,) for key in keys))


def _list_page(prefix: str, start_after: str, connection: sqlite3.Connection) -> Sequence[ObjectInfo]:
    rows = connection.execute(
        "SELECT key, id, length(body) FROM objects WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
        (*key_range(prefix, start_after), _PAGE_OBJECTS),
    )
    return [ObjectInfo(key, str(row_id), size) for key, row_id, size in rows]


def _scan_page(prefix: str, start_after: str, connection: sqlite3.Connection) -> list[StoredObject]:
    page = []
    size = 0
    with closing(connection.cursor()) as rows:  # a statement left half-way keeps its read transaction open
        rows.execute(
            "SELECT key, body, id FROM objects WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            (*key_range(prefix, start_after), _PAGE_OBJECTS),
        )
        for key, body, row_id in rows:
            page.append(StoredObject(key, body, str(row_id)))
            size += len(body)
            if size >= _PAGE_BYTES:
                break
    return page


def _probe(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT id FROM objects LIMIT 1").fetchone()
