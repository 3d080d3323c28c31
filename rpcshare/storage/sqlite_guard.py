"""Watches the files of a SQLite store: whether they are still there, and how much room there is.

SQLite keeps a file open that has been removed or replaced, and commits to it; what is in it is gone with the
process ("How To Corrupt An SQLite Database File", section 4 of its documentation). So before a commit is
acknowledged, the paths are compared with what was opened.
"""

import logging
import os
import sqlite3
import threading
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from rpcshare.storage.store import StoreError, StoreUsage

__all__ = ["FileGuard", "StoreMovedError"]

logger = logging.getLogger(__name__)

_SUFFIXES = ("", "-wal", "-shm")

_ROOM = 2**20
"""Bytes that must be free for the store to count as writable: a large sync, and what goes with it."""
_LITTLE_ROOM = 256 * 2**20
"""Bytes of free disk below which operators are warned."""
_LONG_LOG = 128 * 2**20
"""Bytes of the write-ahead log above which they are: eight times what it is cut back to."""
_MEASURE_EVERY = 10.0  # seconds


class StoreMovedError(StoreError):
    """The store's files are no longer where they were opened: what is written would be lost.

    Attributes:
        is_log_alone: whether only the log is gone, and nobody has begun another: what is in it can be copied.
    """

    is_log_alone = False


class _Identity(NamedTuple):
    device: int
    inode: int


class FileGuard:
    """What is known of one store's files. Several threads may use it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Take the files at ``path`` for those of the store that ``connection`` has just opened and written.

        Raises:
            StoreError: one is not there.
            sqlite3.Error: it cannot be read.
        """
        self._path = path
        self._schema = _schema_version(connection)
        self._files = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
        self._lock = threading.Lock()
        self._size = 0
        self._is_lost = False
        self._warnings: set[str] = set()
        self._measured_at = monotonic() - _MEASURE_EVERY
        try:
            self._opened = [self._look(each) for each in self._files]
        except OSError as exc:
            raise StoreError(f"the store {path}: it is gone ({exc.strerror})") from exc

    def require_same_files(self, connection: sqlite3.Connection | None = None) -> None:
        """Return if the paths still lead to what was opened.

        Args:
            connection: of the store, on its thread. Without it, a file that is shorter than it was is not
                told of: it may have been cut by VACUUM.

        Raises:
            StoreMovedError: they do not.
            sqlite3.Error: the store cannot be read.
        """
        why = self._difference(connection)
        if (why is not None) is not self._is_lost:
            self._tell(why)
        if why is not None:
            error = StoreMovedError(f"the store {self._path}: {why}", reason=f"the store's file {why}")
            error.is_log_alone = self._is_log_alone()
            raise error
        if monotonic() - self._measured_at >= _MEASURE_EVERY:
            self.usage()

    def require_room(self) -> None:
        """Return if there is room on the disk to write something of usual size.

        Raises:
            StoreError: there is none.
        """
        free = self._free()
        if free < _ROOM:
            why = f"the disk is full: {free // 1024} KiB are free"
            raise StoreError(f"the store {self._path}: {why}", reason=why)

    def usage(self) -> StoreUsage:
        """Return how much the files take, and warn if that is too much."""
        self._measured_at = monotonic()
        file, log = (self._size_of(each) for each in self._files[:2])
        usage = StoreUsage(file, log, self._free())
        self._warn(
            "disk",
            usage.free_bytes < _LITTLE_ROOM,
            f"little room is left on the disk of the store {self._path}: {_mebibytes(usage.free_bytes)} free",
        )
        self._warn(
            "log",
            log > _LONG_LOG,
            f"the write-ahead log of the store {self._path} has grown to {_mebibytes(log)}: somebody "
            "has been reading for long (a backup, an sqlite3 shell); end that, and it shrinks",
        )
        return usage

    def _difference(self, connection: sqlite3.Connection | None) -> str | None:
        """Return what has become of the files, if they are not those that were opened."""
        for file, opened in zip(self._files, self._opened, strict=True):
            try:
                found = self._look(file)
            except OSError as exc:
                return f"{file.name} has been removed ({exc.strerror}): restart the server"
            if found != opened:
                return f"{file.name} has been replaced or written over: restart the server"
        if connection is not None and self._is_cut(connection):
            return f"{self._path.name} has been replaced or written over: restart the server"
        return None

    def _is_cut(self, connection: sqlite3.Connection) -> bool:
        """Whether the file is shorter than it was, and not because of VACUUM."""
        size = self._path.stat().st_size
        if size < self._size:
            # VACUUM is all that cuts the file, and it always changes the schema's number.
            schema = _schema_version(connection)
            if schema == self._schema:
                return True
            self._schema = schema
        self._size = size
        return False

    def _is_log_alone(self) -> bool:
        try:
            return self._look(self._path) == self._opened[0] and not os.path.lexists(self._files[1])
        except OSError:
            return False

    def _look(self, file: Path) -> _Identity:
        found = file.stat()
        return _Identity(found.st_dev, found.st_ino)

    def _tell(self, why: str | None) -> None:
        with self._lock:
            if (why is not None) is self._is_lost:
                return
            self._is_lost = why is not None
        if why is not None:
            logger.error("The store %s: %s. No write is acknowledged until then.", self._path, why)
        else:
            logger.warning("The store %s is where it was again", self._path)

    def _warn(self, about: str, is_so: bool, message: str) -> None:
        with self._lock:
            if is_so is (about in self._warnings):
                return
            if not is_so:
                self._warnings.discard(about)
                return
            self._warnings.add(about)
        logger.warning("%s", message[0].upper() + message[1:])

    def _free(self) -> int:
        try:
            found = os.statvfs(self._path.parent)
        except OSError:
            return 0
        # Root writes to what is kept back for it, too.
        return found.f_frsize * (found.f_bfree if os.geteuid() == 0 else found.f_bavail)

    def _size_of(self, file: Path) -> int:
        try:
            return file.stat().st_size
        except OSError:
            return 0


def _schema_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    return int(version)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
