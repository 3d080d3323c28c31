"""Noticing that somebody has put older objects back into the store, and not falling for it.

Nothing in a store tells an old object from the newest: encryption binds an object to its key, not to a time.
So a server keeps high-water marks outside of the store, in its data directory: the newest state that it has
seen of whatever must not come back, which are API keys and tokens that were revoked, shares that were
deleted, and settings of shares that were changed. Where the store has an older one, the newest stands, and is
put back.

What is no object of these kinds has no mark: log entries, which a server that has the share open misses by
itself, and what no server with this data directory has ever seen.
"""

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from rpcshare.auth.api_keys import KEY_PREFIX, decode_key
from rpcshare.auth.token_revocations import REVOKED_PREFIX
from rpcshare.shares import objects
from rpcshare.shares.version_order import Newer, newer
from rpcshare.sqlite_connection import SqliteConnection
from rpcshare.storage import (
    ObjectInfo,
    ObjectStore,
    PreconditionFailedError,
    Put,
    StoredObject,
    StoreError,
)
from rpcshare.storage.store_wrapper import StoreWrapper

__all__ = ["MARKS_FILE", "HighWaterMarks", "MarksError", "RollbackCheckedStore", "has_marks"]

logger = logging.getLogger(__name__)

MARKS_FILE = "high-water-marks.sqlite3"
"""Its name in the data directory."""

_MOST = 100_000  # marks, and generations; beyond, the oldest are forgotten
_FORGOTTEN_AT_ONCE = 1000
_TIMEOUT = 2.0  # seconds for which another process may hold the file
_ATTEMPTS = 3  # at putting back what a store has lost, where others write the same object
_TOLD_AT_MOST = 1000  # objects of which it is remembered that they have been told of

_SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS marks (n INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, body BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS present (n INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, generation TEXT);
    CREATE TABLE IF NOT EXISTS former (n INTEGER PRIMARY KEY, generation TEXT UNIQUE NOT NULL);
"""


class MarksError(Exception):
    """The file cannot be used. The message names it, and the cause."""


class _Mark(NamedTuple):
    key: str
    body: bytes

    def stored(self) -> StoredObject:
        return StoredObject(self.key, self.body, "")


class HighWaterMarks:
    """The newest state that servers with one data directory have seen of what must not come back.

    Generations of shares and hashes of keys are random, so a mark is true of every copy of a store.
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        """For :meth:`open`, which makes what this takes."""
        self.path = path
        self._database = database
        self._is_well = True

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file at ``path``, which is made if it is not there, for its owner alone.

        Raises:
            MarksError: it cannot be opened.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            database = sqlite3.connect(path, timeout=_TIMEOUT, isolation_level=None, factory=SqliteConnection)
            database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as exc:
            raise MarksError(f"{path}: {exc}") from exc
        return cls(path, database)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __iter__(self) -> Iterator[str]:
        """Yield the keys of the objects that have marks, the oldest mark first."""
        with closing(self._database.cursor()) as rows:
            rows.execute("SELECT key FROM marks ORDER BY n")
            for (key,) in rows:
                yield key

    def newer_than(self, key: str, body: bytes | None) -> bytes | None:
        """Return what is newer than ``body``, which the store has at ``key``; None if nothing is known to be.

        Where the store has nothing, it is what keeps the place of a share: nobody else gets its id.
        """
        mark = self._mark(key)
        if mark is None or mark.body == body:
            return None
        if key.startswith(REVOKED_PREFIX):
            return mark.body  # which never changes
        if body is None:
            return None if key.startswith(KEY_PREFIX) else _place_of(mark)
        match newer(mark.stored(), StoredObject(key, body, "")):
            case Newer.SOURCE:
                return mark.body
            case Newer.NEITHER if self._is_former(key, body):
                return mark.body
            case _:
                return None

    def note(self, key: str, body: bytes) -> None:
        """Take note of what the store has, or has just taken, which is not older than what is known."""
        mark = self._mark(key)
        try:
            if _is_head(key):
                self._note_generation(key, _generation(body), mark)
            if mark.body == body if mark is not None else not _must_not_come_back(key, body):
                return
            self._database.execute("INSERT OR REPLACE INTO marks (key, body) VALUES (?, ?)", (key, body))
            self._forget_oldest("marks")
        except sqlite3.Error as exc:
            self._failed(exc)

    def _note_generation(self, key: str, present: str, mark: _Mark | None) -> None:
        """Take note of the generation that a share has. The one that it had before is over, ended or not."""
        found = self._ask("SELECT generation FROM present WHERE key = ?", key)
        before = found[0] if found is not None else _generation(mark.body) if mark is not None else ""
        if not present or before == present or self._is_former_generation(present):
            return
        if before:
            self._database.execute("INSERT OR IGNORE INTO former (generation) VALUES (?)", (before,))
            self._forget_oldest("former")
        self._database.execute(
            "INSERT OR REPLACE INTO present (key, generation) VALUES (?, ?)", (key, present)
        )
        self._forget_oldest("present")

    def revocations(self) -> list[str]:
        """Return the keys of the revocations of tokens that are known, in order."""
        query = "SELECT key FROM marks WHERE key >= ? AND key < ? ORDER BY key"
        try:
            rows = self._database.execute(query, (REVOKED_PREFIX, REVOKED_PREFIX + "~")).fetchall()
        except sqlite3.Error as exc:
            self._failed(exc)
            return []
        return [key for (key,) in rows]

    def forget(self, key: str) -> None:
        """Take note that a server has removed the object at ``key``, which is of no use any more."""
        try:
            self._database.execute("DELETE FROM marks WHERE key = ?", (key,))
        except sqlite3.Error as exc:
            self._failed(exc)

    def is_newest(self, key: str, body: bytes) -> bool:
        """Whether ``body`` is the mark of the object at ``key``."""
        mark = self._mark(key)
        return mark is not None and mark.body == body

    def _mark(self, key: str) -> _Mark | None:
        found = self._ask("SELECT body FROM marks WHERE key = ?", key)
        return None if found is None else _Mark(key, found[0])

    def _is_former(self, key: str, body: bytes) -> bool:
        return _is_head(key) and self._is_former_generation(_generation(body))

    def _is_former_generation(self, generation: str) -> bool:
        return self._ask("SELECT n FROM former WHERE generation = ?", generation) is not None

    def _ask(self, query: str, parameter: str) -> tuple[Any, ...] | None:
        try:
            found: tuple[Any, ...] | None = self._database.execute(query, (parameter,)).fetchone()
        except sqlite3.Error as exc:
            self._failed(exc)
            return None
        self._is_well = True
        return found

    def _forget_oldest(self, table: str) -> None:
        (last,) = self._database.execute("SELECT last_insert_rowid()").fetchone()
        if last % _FORGOTTEN_AT_ONCE:
            return
        self._database.execute(
            f"DELETE FROM {table} WHERE n <= (SELECT n FROM {table} ORDER BY n DESC LIMIT 1 OFFSET ?)",  # noqa: S608 -- a table of ours
            (_MOST,),
        )

    def _failed(self, exc: sqlite3.Error) -> None:
        if self._is_well:
            logger.warning(
                "Older objects that are put back into the store go unnoticed: %s: %s", self.path, exc
            )
        self._is_well = False


def has_marks(key: str) -> bool:
    """Whether an object may have a mark: the head of a share, an API key, or a revocation of tokens."""
    return _is_head(key) or key.startswith((KEY_PREFIX, REVOKED_PREFIX))


def _is_head(key: str) -> bool:
    return key.startswith("share/") and key.endswith("/head")


def _must_not_come_back(key: str, body: bytes) -> bool:
    """Whether there is something older of an object that would undo what somebody has done."""
    if key.startswith(REVOKED_PREFIX):
        return True
    try:
        if key.startswith(KEY_PREFIX):
            return decode_key(StoredObject(key, body, "")).revoked_at is not None
        head = objects.decode_head(body)
    except StoreError:
        return False
    return head.deleted or head.revision > 0


def _generation(body: bytes) -> str:
    try:
        return objects.decode_head(body).generation
    except StoreError:
        return ""


def _place_of(mark: _Mark) -> bytes | None:
    try:
        head = objects.decode_head(mark.body)
    except StoreError:
        return None
    if head.deleted:
        return mark.body
    place = objects.Head(objects.VERSION, head.generation, owner=head.owner, deleted=True)
    return objects.encode_head(place)


class RollbackCheckedStore(StoreWrapper):
    """An :class:`~rpcshare.storage.ObjectStore` in which the newest known state stands.

    Everything but the objects with marks is that of the store inside.
    """

    def __init__(self, inner: ObjectStore, marks: HighWaterMarks) -> None:
        """Check what ``inner`` keeps; closing this closes both."""
        super().__init__(inner)
        self._marks = marks
        self._told: set[str] = set()

    def get(self, key: str) -> Coroutine[Any, Any, StoredObject | None]:
        """Return the newest known state of the object at ``key``, or None if there is none."""
        # No coroutine of its own around those of all log entries.
        return self._checked(key) if has_marks(key) else self._inner.get(key)

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> Awaitable[str]:
        """Write ``body`` at ``key`` if the conditions hold; await its etag."""
        writing = self._inner.put(key, body, if_absent=if_absent, if_match=if_match)
        return self._noted(key, body, writing) if has_marks(key) else writing

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove the objects at ``keys``; one that is not there is no error."""
        await self._inner.delete(keys)
        for key in keys:
            if key.startswith(REVOKED_PREFIX):
                self._marks.forget(key)

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is stored under ``prefix``, in key order, from behind ``start_after``."""
        if prefix == REVOKED_PREFIX:
            return self._revocations(start_after)
        return self._inner.list(prefix, start_after=start_after)

    async def _revocations(self, start_after: str) -> AsyncIterator[ObjectInfo]:
        """Yield the revocations of tokens: those of the store, and those that it has lost."""
        lost = {key for key in self._marks.revocations() if key > start_after}
        found = {info.key: info async for info in self._inner.list(REVOKED_PREFIX, start_after=start_after)}
        for key in lost - found.keys():
            if (checked := await self._checked(key)) is not None:
                found[key] = ObjectInfo(key, checked.etag, len(checked.body))
        for key in sorted(found):
            yield found[key]

    async def scan(self, prefix: str, *, start_after: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects under ``prefix`` with their bodies, in key order, the newest known of each."""
        async for found in self._inner.scan(prefix, start_after=start_after):
            if not has_marks(found.key) or self._newer_than(found.key, found) is None:
                held = [found]
                del found  # it may be large, and whoever takes it knows for how long
                yield held.pop()
            elif (checked := await self._checked(found.key)) is not None:
                yield checked

    async def apply(self, puts: Sequence[Put], deleted: Sequence[str]) -> None:
        """Write ``puts`` and remove the objects at ``deleted``, all or none, as the store inside does."""
        await super().apply(puts, deleted)
        for put in puts:
            if has_marks(put.key):
                self._marks.note(put.key, put.body)

    async def close(self) -> None:
        """Close the store inside, and the file of the marks."""
        try:
            await self._inner.close()
        finally:
            self._marks.close()

    async def _noted(self, key: str, body: bytes, writing: Awaitable[str]) -> str:
        etag = await writing
        if self._marks.newer_than(key, body) is None:
            self._marks.note(key, body)
        return etag

    async def _checked(self, key: str) -> StoredObject | None:
        found = await self._inner.get(key)
        if self._newer_than(key, found) is None:
            return found
        newest: bytes | None = None
        for _ in range(_ATTEMPTS):
            # What made the mark may have been written behind what was read. By now it can be read.
            found = await self._inner.get(key)
            newest = self._newer_than(key, found)
            if newest is None:
                return found
            self._tell(key, newest, found)
            try:
                etag = await self._put_back(key, newest, found)
            except PreconditionFailedError:
                continue
            return StoredObject(key, newest, etag)
        return None if newest is None else StoredObject(key, newest, found.etag if found else "")

    def _newer_than(self, key: str, found: StoredObject | None) -> bytes | None:
        newest = self._marks.newer_than(key, None if found is None else found.body)
        if newest is None and found is not None:
            self._marks.note(key, found.body)
        return newest

    async def _put_back(self, key: str, newest: bytes, found: StoredObject | None) -> str:
        try:
            if found is not None:
                return await self._inner.put(key, newest, if_match=found.etag)
            if self._marks.is_newest(key, newest):
                return await self._inner.put(key, newest, if_absent=True)
        except StoreError as exc:
            logger.warning("%s cannot be put back: %s", key, exc)
        # Of a share that is missing and was not deleted, the place is kept, but not in the store: whoever has
        # taken it away may bring it back.
        return "" if found is None else found.etag

    def _tell(self, key: str, newest: bytes, found: StoredObject | None) -> None:
        if key in self._told:
            return
        if len(self._told) < _TOLD_AT_MOST:
            self._told.add(key)
        logger.error(
            "The store has %s, and this server has seen that %s, which stands. Has somebody put an older "
            "copy of the store, or of this object, in its place? If that was meant, stop the server and "
            "remove %s.",
            f"an older {key}" if found is not None else f"no {key} any more",
            described(key, newest),
            self._marks.path,
        )


def described(key: str, newest: bytes) -> str:
    """Return what the newest known state of an object is, in some words."""
    if key.startswith(KEY_PREFIX):
        return "the key has been revoked"
    if key.startswith(REVOKED_PREFIX):
        return "tokens have been revoked by it"
    head = msgspec.json.decode(newest, type=objects.Head)
    if head.deleted:
        return "the share has been deleted"
    if head.revision == 0:
        return "the share has been made anew"
    return f"the settings of the share have been changed, {head.revision} times by now"
