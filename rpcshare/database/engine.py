"""Opening a database, and its transactions."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from threading import Event, Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from rpcshare.database.load import DatabaseLoad
from rpcshare.database.location import (
    DatabaseError,
    DatabaseLocation,
    InvalidValueError,
    QueryTooLongError,
)
from rpcshare.database.schema_version import PROJECTION, Schema, check_not_newer, refuse_unknown
from rpcshare.sqlite_connection import SqliteConnection

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Database"]

logger = logging.getLogger("rpcshare.database")

_MIGRATION_LOCK = 0x72706373  # "rpcs", among PostgreSQL's advisory locks
_BUSY_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_COMMAND_SECONDS = 60.0
_READERS = 4  # threads
_STEPS = 10_000  # of SQLite's virtual machine between two looks at the clock: a millisecond or less
_DATA_EXCEPTION = "22"  # the class of SQL's codes for values that are none, as PostgreSQL gives them
_IS_WRITING = "rpcshare_is_writing"
_IS_ABANDONED = "rpcshare_is_abandoned"

T = TypeVar("T")


class Database:
    """An open database whose schema is the newest. Methods raise DatabaseError.

    The event loop never waits for it: SQLite runs in threads of its own.
    """

    def __init__(self, location: DatabaseLocation, schema: Schema = PROJECTION) -> None:
        """Made by :meth:`open`."""
        self.location = location
        self.is_sqlite = location.path is not None
        self._identity = _identity(location.path)
        self._schema = schema
        self._reopening = Lock()
        # A transaction of SQLite is one turn of a thread, and so of the event loop: an asynchronous driver
        # takes a turn for each statement, ten times as much.
        self._engine: Engine | AsyncEngine = (
            _engine(location, schema) if location.path is None else _sqlite_engine(location.path, schema)
        )
        self._readers = ThreadPoolExecutor(_READERS, "database-reader")  # which begin as they are needed
        self._writer = ThreadPoolExecutor(1, "database-writer")

    @classmethod
    async def open(
        cls, location: DatabaseLocation, load: DatabaseLoad | None = None, schema: Schema = PROJECTION
    ) -> "Database":
        """Open a database, and bring its schema up to date.

        Any number of servers may do so at once: one of them migrates, and the others wait. Its statements
        are counted in ``load``. What it holds is ``schema``'s.

        Raises:
            NewerSchemaError: it is that of a newer version.
        """
        with _failures(location, schema):
            if location.path is not None:
                await asyncio.to_thread(_prepare_file, location.path)
                if schema.is_durable:
                    await asyncio.to_thread(_require_sound, location, schema)
            database = cls(location, schema)
            if load is not None:
                engine = database._engine
                load.watch(engine if isinstance(engine, Engine) else engine.sync_engine)
            try:
                async with _migrating_alone():
                    await database.write(partial(_migrate, location, schema))
                database._identity = await asyncio.to_thread(_identity, location.path)
            except BaseException:
                await database.close()
                raise
        return database

    async def read(self, work: Callable[[Connection], T], *, limit: float | None = None) -> T:
        """Return what ``work`` does in a transaction that only reads: of SQLite, in a thread.

        Args:
            work: may be called in a thread.
            limit: seconds that it may take.

        Raises:
            QueryTooLongError: it takes longer.
        """
        with _failures(self.location, self._schema):
            if not isinstance(self._engine, Engine):
                # As SQLite does: or a page's rows and their count could be those of two moments.
                snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ")
                async with snapshots.begin() as connection:
                    if limit is not None:
                        await connection.execute(text(f"SET LOCAL statement_timeout = {round(limit * 1000)}"))
                    return await connection.run_sync(work)
            # In the caller's context, to which its tracing belongs.
            run = partial(copy_context().run, self._guarded, _read_in_thread, work, limit)
            return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` does in a transaction that writes: of SQLite, in a thread.

        It is committed unless ``work`` raises. If the caller is cancelled, ``work`` is ended by its next
        :meth:`made`.
        """
        with _failures(self.location, self._schema):
            if not isinstance(self._engine, Engine):
                async with self._engine.begin() as connection:
                    return await connection.run_sync(work)
            is_abandoned = Event()
            # In the caller's context, to which its tracing belongs.
            write = partial(_write_in_thread, before_commit=self._require_files)
            run = partial(copy_context().run, self._guarded, write, work, is_abandoned)
            try:
                return await asyncio.get_running_loop().run_in_executor(self._writer, run)
            except asyncio.CancelledError:
                is_abandoned.set()
                raise

    def made(self, connection: Connection, make: Callable[[], T]) -> T:
        """Return what ``make`` returns, within the work of :meth:`write`: the event loop does not wait."""
        if not isinstance(self._engine, Engine):
            from sqlalchemy.util import await_only  # noqa: PLC0415 -- PostgreSQL's alone

            return await_only(asyncio.to_thread(make))
        if connection.get_execution_options()[_IS_ABANDONED].is_set():
            raise DatabaseError("nobody waits for it any more")
        return make()

    async def check(self) -> None:
        """Return if the database can be read and written now; what is wrong is in the error."""
        await self.write(lambda connection: connection.execute(text("SELECT 1")).scalar())

    def _guarded(self, run: Callable[..., T], *arguments: object) -> T:
        """Return what ``run`` does with the engine, in a thread of SQLite's.

        What is durable is neither read from nor written to a file that is no longer where it was opened:
        SQLite goes on with it, and what it commits there is gone with the process. Where another file is in
        its place, as a backup, that is opened.
        """
        if not isinstance(self._engine, Engine):
            raise TypeError("PostgreSQL needs no threads")
        if self._schema.is_durable:
            self._require_or_reopen(self._engine)
        try:
            return run(self._engine, *arguments)
        except SQLAlchemyError as exc:
            if _is_of_file(exc):  # which connections would go on to hold as it was
                self._engine.dispose()
            raise

    def _require_files(self) -> None:
        """Return if what is about to be committed is in the files that are there."""
        path = self.location.path
        if not self._schema.is_durable or path is None:
            return
        has_log = path.with_name(f"{path.name}-wal").exists()
        if _identity(path) == self._identity and has_log:
            return
        if isinstance(self._engine, Engine):
            self._engine.dispose()
        raise DatabaseError(f"the database {self.location.shown}: its file has been moved or removed")

    def _require_or_reopen(self, engine: Engine) -> None:
        path = self.location.path
        if path is None or _identity(path) == self._identity:
            return
        with self._reopening:
            found = _identity(path)
            if found == self._identity:
                return  # another thread was quicker
            engine.dispose()
            if found is None:
                raise DatabaseError(f"the database {self.location.shown}: its file is gone")
            try:
                self._adopt_file(engine, path)
            except BaseException:
                engine.dispose()  # or a connection to it would be kept
                raise
            self._identity = found
            logger.warning("The file of the database %s is another one: it is opened", self.location.shown)

    def _adopt_file(self, engine: Engine, path: Path) -> None:
        """Take a file in the place of the one that was open, and bring its schema up to date."""
        check_not_newer(self.location, self._schema)
        _prepare_file(path)
        _require_sound(self.location, self._schema)
        with engine.execution_options(**{_IS_WRITING: True}).begin() as connection:
            if not inspect(connection).has_table("alembic_version"):
                # An empty one in its place would be one without users, whom nobody has removed.
                reason = f"another file is in its place, which is none of rpcshare's. {self._schema.remedy}"
                raise DatabaseError(f"the database {self.location.shown}: {reason}")
            with _alembic:
                _migrate(self.location, self._schema, connection)

    async def is_replaced(self) -> bool:
        """Whether the file is gone, or is another one than that which is open."""
        return self.is_sqlite and await asyncio.to_thread(_identity, self.location.path) != self._identity

    async def close(self) -> None:
        """Close all connections. No call may follow."""
        for threads in (self._readers, self._writer):
            await asyncio.to_thread(threads.shutdown)
        if not isinstance(self._engine, Engine):
            await self._engine.dispose()
        else:
            self._engine.dispose()


def _read_in_thread(engine: Engine, work: Callable[[Connection], T], limit: float | None) -> T:
    with engine.begin() as connection:
        if limit is None:
            return work(connection)
        driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # it is
        until = monotonic() + limit
        driver.set_progress_handler(lambda: monotonic() > until, _STEPS)
        try:
            return work(connection)
        except OperationalError as exc:
            if monotonic() <= until:
                raise
            # What an index says whose own query was ended is not always that.
            raise QueryTooLongError("the query took too long") from exc
        finally:
            driver.set_progress_handler(None, 0)


def _write_in_thread(
    engine: Engine,
    work: Callable[[Connection], T],
    is_abandoned: Event,
    *,
    before_commit: Callable[[], None] = lambda: None,
) -> T:
    options = {_IS_WRITING: True, _IS_ABANDONED: is_abandoned}
    with engine.execution_options(**options).begin() as connection:
        done = work(connection)
        before_commit()
        return done


_OF_FILE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def _is_of_file(error: SQLAlchemyError) -> bool:
    """Whether the file is broken, or cannot be read."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF in _OF_FILE  # the rest of an extended code says what of it


def _engine(location: DatabaseLocation, schema: Schema) -> "AsyncEngine":
    # It imports SQLAlchemy's ORM, which takes as long as all that SQLite needs.
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    engine = create_async_engine(
        location.url,
        pool_pre_ping=True,
        connect_args={"timeout": _CONNECT_SECONDS, "command_timeout": _COMMAND_SECONDS},
    )
    if schema.name:
        # By each transaction: a pooler of connections takes no parameter for all of them.
        @event.listens_for(engine.sync_engine, "begin")
        def _look_in_schema(connection: Connection) -> None:
            connection.exec_driver_sql(f"SET LOCAL search_path TO {schema.name}")

    return engine


def _sqlite_engine(path: Path, schema: Schema) -> Engine:
    url = URL.create("sqlite", database=str(path))
    options = {"timeout": _BUSY_SECONDS, "check_same_thread": False, "factory": SqliteConnection}
    engine = create_engine(url, connect_args=options)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:  # noqa: ANN401 -- SQLAlchemy's adapter
        connection.isolation_level = None  # sqlite3 begins no transactions by itself: see below
        cursor = connection.cursor()
        # A projection that loses its last second in a power failure is made again from the store.
        synchronous = "FULL" if schema.is_durable else "NORMAL"
        for pragma in (f"synchronous={synchronous}", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes then fails at once where another has written meanwhile.
        is_writing = connection.get_execution_options().get(_IS_WRITING)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    return engine


def _prepare_file(path: Path) -> None:
    """Make the file with a write-ahead log, unless it has one; other processes may be doing so, too.

    Unlike others, this statement does not wait for the lock.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The texts of private shares are in it. SQLite gives its -wal and -shm files the same mode.
    path.touch(mode=0o600)
    for each in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
        with suppress(FileNotFoundError):
            if each.stat().st_mode & 0o077:
                _close_to_others(each)
    deadline = time.monotonic() + _BUSY_SECONDS
    with closing(sqlite3.connect(path)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return


def _require_sound(location: DatabaseLocation, schema: Schema) -> None:
    """Return if SQLite finds no page of the file broken: it would go on writing to the others.

    Raises:
        DatabaseError: it does.
    """
    with closing(sqlite3.connect(location.path or "")) as connection:
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError) and exc.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                return  # who has it open has checked it
            found = str(exc)
    if found != "ok":
        raise DatabaseError(f"the database {location.shown} is broken. {schema.remedy}")


def _close_to_others(path: Path) -> None:
    try:
        path.chmod(0o600)
    except PermissionError:  # somebody else's file
        logger.warning("%s is open to other users than its owner, and this one cannot close it", path)


# What Alembic runs is found by module-level names, one database's for all threads of a process.
_alembic = Lock()


@asynccontextmanager
async def _migrating_alone() -> AsyncIterator[None]:
    while not _alembic.acquire(blocking=False):  # noqa: ASYNC110 -- threads of several loops may have it
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        _alembic.release()


def _migrate(location: DatabaseLocation, schema: Schema, connection: Connection) -> None:
    if location.path is None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        if schema.name:
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema.name}"))
    found: list[str] = []
    if inspect(connection).has_table("alembic_version"):
        found = list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    refuse_unknown(location, found, schema)
    if found == [schema.revisions[-1]]:
        return
    if location.path is not None and schema.sqlite is not None and not found:
        for statement in schema.sqlite.read_text("utf-8").split("\n\n"):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (schema.revisions[-1],))
        return
    # Only a new version needs it, and it takes long to import.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(schema.migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _identity(path: Path | None) -> tuple[int, int] | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found is not None else None


@contextmanager
def _failures(location: DatabaseLocation, schema: Schema) -> Iterator[None]:
    """Raise what a database raises as DatabaseError, without statements and their values."""
    try:
        yield
    except DatabaseError:
        raise
    except UnicodeEncodeError as exc:
        raise InvalidValueError(f"the database {location.shown} takes no half of a surrogate pair") from exc
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        cause = getattr(exc, "orig", None) or exc
        if str(getattr(cause, "sqlstate", "")).startswith(_DATA_EXCEPTION):
            raise InvalidValueError(f"the database {location.shown} does not take a value") from exc
        if "statement timeout" in str(cause):  # as PostgreSQL says it
            raise QueryTooLongError("the query took too long") from exc
        # SQLAlchemy's own words may have statements in them, a driver's have none.
        is_drivers = cause is not exc or isinstance(cause, sqlite3.Error)
        reason = str(cause).splitlines()[0] if str(cause) and is_drivers else type(cause).__name__
        if getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            reason += f". {schema.remedy}"
        if isinstance(exc, OSError):
            reason = exc.strerror or type(exc).__name__
        raise DatabaseError(f"the database {location.shown}: {reason}") from exc
