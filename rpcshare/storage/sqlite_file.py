"""The file of a :class:`~rpcshare.storage.SqliteStore`: its schema, and how it is opened."""

import sqlite3
import time
from pathlib import Path

from rpcshare.sqlite_connection import SqliteConnection
from rpcshare.storage.store import StoreError

__all__ = ["open_reader", "open_writer", "write_something"]

_APPLICATION_ID = 0x72706373  # "rpcs" in PRAGMA application_id: the file is ours
_SCHEMA_VERSION = 1  # in PRAGMA user_version

# AUTOINCREMENT never gives an id twice, and a row that replaces another gets a new one, so the id
# serves as the etag.
_SCHEMA = """
    CREATE TABLE objects (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        body BLOB NOT NULL
    )
"""

_WAL_SIZE_KEPT = 16 * 2**20  # bytes; a burst may exceed it, and the file is cut back afterwards
# Pages of 4 KiB, which fill that. A page that many commits have changed is copied to the file once: where
# many shares are written at once, commits take a third less time than with SQLite's 1,000.
_WAL_PAGES_KEPT = 4000
_LOCK_POLL_INTERVAL = 0.01  # seconds


class _UnusableFileError(Exception):
    """A SQLite database that this version cannot use. The message says why."""


def open_writer(path: Path, *, busy_timeout: float) -> sqlite3.Connection:
    """Open the store at ``path`` for writing; make the file and its directory if there are none.

    The connection begins no transaction by itself. Threads may share it if they take turns. For a
    lock that another process holds it waits up to ``busy_timeout`` seconds.

    Raises:
        StoreError: the file cannot be read and written, or holds something else.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)  # SQLite gives its -wal and -shm files the same mode
        connection = _connect(path, busy_timeout)
    except FileExistsError as exc:
        raise _cannot_open(path, f"{path.parent} is not a directory") from exc
    except OSError as exc:
        raise _cannot_open(path, exc.strerror) from exc
    except sqlite3.Error as exc:
        raise _cannot_open(path, exc) from exc
    try:
        _refuse_other_files(connection)  # before anything is written
        _enable_wal(connection, deadline=time.monotonic() + busy_timeout)
        _create_schema(connection)
    except (_UnusableFileError, sqlite3.Error) as exc:
        connection.close()
        raise _cannot_open(path, exc) from exc
    return connection


def open_reader(path: Path, *, busy_timeout: float) -> sqlite3.Connection:
    """Open the store that :func:`open_writer` opened, for reading only.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        connection = _connect(path, busy_timeout)
    except sqlite3.Error as exc:
        raise _cannot_open(path, exc) from exc
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=busy_timeout, isolation_level=None, check_same_thread=False, factory=SqliteConnection
    )


def _cannot_open(path: Path, reason: object) -> StoreError:
    return StoreError(f"cannot open the store {path}: {reason}")


def _refuse_other_files(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    _read_schema_version(connection)
    connection.execute("COMMIT")


def _read_schema_version(connection: sqlite3.Connection) -> int:
    """Return the schema version of the file, 0 if it is empty.

    Reads in several steps, so call it inside a transaction: another process may be creating the
    schema.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != _APPLICATION_ID:
        if tables or version:
            raise _UnusableFileError("it is a database of another program")
        return 0
    if version > _SCHEMA_VERSION:
        raise _UnusableFileError(
            f"a newer rpcshare wrote it (schema {version}, this one knows up to {_SCHEMA_VERSION})"
        )
    return int(version)


def _enable_wal(connection: sqlite3.Connection, *, deadline: float) -> None:
    """Let readers and the writer not wait for each other, and make every commit durable."""
    while (mode := _try_wal(connection)) is None:
        if time.monotonic() >= deadline:
            raise _UnusableFileError("another process holds it locked")
        time.sleep(_LOCK_POLL_INTERVAL)
    if mode != "wal":
        raise _UnusableFileError("its file system has no shared memory, which SQLite's WAL needs")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE_KEPT}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES_KEPT}")


def _try_wal(connection: sqlite3.Connection) -> str | None:
    """Return the journal mode that the file has now, or None if it is locked.

    Unlike others, this statement does not wait for the lock, which several processes take when they
    open a new file at the same time.
    """
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return None
    return str(mode)


def _create_schema(connection: sqlite3.Connection) -> None:
    """Create the tables, once among all processes that open the file."""
    connection.execute("BEGIN IMMEDIATE")
    if _read_schema_version(connection) == 0:
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    write_something(connection)
    connection.execute("COMMIT")


def write_something(connection: sqlite3.Connection) -> None:
    """Write a page of the file as it is, within a transaction: a file that may only be read shows by this."""
    connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
