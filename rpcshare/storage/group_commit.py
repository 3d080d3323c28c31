"""Many writes at once, one transaction at a time.

A durable commit costs an fsync, however much it holds. So what is asked for while a commit is under
way waits, and goes into the next one together: under load transactions grow instead of becoming
more.

:meth:`GroupCommit.run` queues a write on the event loop. A thread takes all that is queued, applies
it in order inside one transaction, commits, and has the event loop tell everyone who waits.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from rpcshare.storage.bulk_insert import MOST_AT_ONCE, NewObject, insert_all
from rpcshare.storage.fair_lock import FairLock
from rpcshare.storage.sqlite_guard import StoreMovedError
from rpcshare.storage.store import StoreError

__all__ = ["GroupCommit"]

T = TypeVar("T")


class _Write(Generic[T]):
    """What to do, who waits for it, and how it went."""

    __slots__ = ("apply", "error", "result", "waiter")

    def __init__(self, apply: Callable[[sqlite3.Connection], T], waiter: asyncio.Future[T]) -> None:
        self.apply = apply
        self.waiter = waiter  # of the event loop: the thread leaves it alone
        self.result: T
        self.error: Exception | None = None

    def settle(self) -> None:
        """Tell the waiter, unless it has given up."""
        if self.waiter.done():
            return
        if self.error is None:
            self.waiter.set_result(self.result)
        else:
            self.waiter.set_exception(self.error)


class GroupCommit:
    """Owns the connection that writes, and the thread that uses it.

    Attributes:
        commits: how many transactions have been committed.
        has_failed: whether the last transaction failed.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        name: str,
        verify: Callable[[sqlite3.Connection], None],
        turns: FairLock | None = None,
    ) -> None:
        """Start the thread.

        Args:
            connection: for this alone.
            name: what errors call the store.
            verify: called on the thread when a transaction has been committed; raises StoreError if it is
                not durable all the same. Then its writes fail.
            turns: which transactions take.
        """
        self.commits = 0
        self.has_failed = False
        self._verify = verify
        self._turns = turns
        self._connection = connection
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._queued: SimpleQueue[_Write[Any] | None] = SimpleQueue()  # None: there will be no more
        self._has_ended = False  # for those who ask on the event loop
        self._is_last = False  # for the thread: None has been taken
        # A daemon, lest a store that nobody closed keep the process from exiting. It may be stopped
        # at any point, as may the machine.
        self._thread = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
        self._thread.start()

    def run(self, apply: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Queue ``apply``; await what it returns, once the transaction that it was part of is durable.

        ``apply`` runs on the thread, inside a transaction; of a NewObject, the statement that writes it
        may write others, too. An exception that it raises is raised
        here, and leaves the other writes of the transaction alone unless it is one of SQLite's. A
        caller that is cancelled does not take its write back.

        Raises:
            StoreError: the transaction failed, or the store is closed.
        """
        if self._has_ended:
            raise StoreError(f"{self._name} is closed")
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._queued.put(_Write(apply, waiter))
        return waiter

    def end(self) -> None:
        """Take no more writes. To be called where :meth:`run` is, lest one get behind the end."""
        self._has_ended = True
        self._queued.put(None)

    def close(self) -> None:
        """Finish what is queued, copy the write-ahead log into the database, and close. Blocks.

        Raises:
            StoreError: the log could not be copied. It is read when the file is next opened.
        """
        self.end()
        self._thread.join()
        if self._turns is not None:
            self._turns.close()
        with contextlib.closing(self._connection):
            try:
                # PASSIVE does not wait for readers in other processes.
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            except sqlite3.Error as exc:
                raise StoreError(f"{self._name}: {exc}") from exc

    def _work(self) -> None:
        while batch := self._take():
            with self._turns or contextlib.nullcontext():
                self._commit(batch)
            # No loop any more: nobody waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, batch)
            del batch  # lest its bodies stay in memory until the next write

    def _take(self) -> Sequence[_Write[Any]]:
        """Wait until something is queued and take all of it; nothing means the end."""
        batch: list[_Write[Any]] = []
        while not self._is_last and not (batch and self._queued.empty()):
            write = self._queued.get()
            if write is None:
                self._is_last = True
            else:
                batch.append(write)
        return batch

    def _commit(self, batch: Sequence[_Write[Any]]) -> None:
        try:
            if not self._insert_all(batch):
                self._apply_each(batch)
            self.commits += 1
            self._verify(self._connection)
            self.has_failed = False
        except (sqlite3.Error, MemoryError) as exc:
            self._roll_back()
            self._fail(batch, self._cause(exc))
        except StoreError as exc:
            self._fail(batch, exc)
            if isinstance(exc, StoreMovedError) and exc.is_log_alone:
                # What was acknowledged before is in the log that nobody will find.
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _cause(self, exc: Exception) -> StoreError:
        """Return why SQLite failed; when its files have been taken away, that is why."""
        try:
            self._verify(self._connection)
        except StoreError as why:
            return why
        except sqlite3.Error:
            pass  # of which there is one already
        return self._failure(exc)

    def _fail(self, batch: Sequence[_Write[Any]], error: StoreError) -> None:
        self.has_failed = True
        for write in batch:
            write.error = error

    def _insert_all(self, batch: Sequence[_Write[Any]]) -> bool:
        """Commit writes of new objects at once; return False if that is not what they are, or cannot be."""
        new = [write.apply for write in batch if isinstance(write.apply, NewObject)]
        if not len(batch) == len(new) <= MOST_AT_ONCE:
            return False
        try:
            etags = insert_all(self._connection, new)
        except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError):
            return False  # one by one it will be seen which cannot be written
        for write, etag in zip(batch, etags, strict=True):
            write.result = etag
        return True

    def _apply_each(self, batch: Sequence[_Write[Any]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for write in batch:
            self._attempt(write)
        self._connection.execute("COMMIT")

    def _attempt(self, write: _Write[Any]) -> None:
        """Apply one write; raise only what puts the whole transaction in doubt."""
        try:
            write.result = write.apply(self._connection)
        except (sqlite3.DataError, OverflowError) as exc:  # a body larger than SQLite can hold
            write.error = self._failure(exc)
        except (sqlite3.Error, MemoryError):
            raise
        except Exception as exc:  # noqa: BLE001 -- it is raised in the caller
            write.error = exc

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # SQLite rolls back by itself after some errors
            # Should this fail, so does the next BEGIN, and it is tried again.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _failure(self, cause: Exception) -> StoreError:
        failure = StoreError(f"{self._name}: {cause}", reason=str(cause))
        failure.__cause__ = cause
        return failure


def _settle(batch: Sequence[_Write[Any]]) -> None:
    for write in batch:
        write.settle()
