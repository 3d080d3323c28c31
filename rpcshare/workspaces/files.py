"""Looking into a workspace: list, find, search and read. Nothing here leads out of it.

All of this blocks and is run in threads. It works while no agent runs, and while one does whatever it likes.
"""

from __future__ import annotations

import errno
import fnmatch
import mimetypes
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.workspaces.beneath import OutsideError, checked_parts, open_beneath, open_file, open_root
from rpcshare.workspaces.file_search import FileMatch, Searching

__all__ = ["MAX_READ", "FileContent", "FileEntry", "Found", "Listing", "Matches", "WorkspaceFiles"]

MAX_READ = 8 * 2**20
"""Bytes of the largest file that is read."""

_MAX_LISTED = 5000
_MAX_FOUND = 1000
_MAX_WALKED = 500_000
_WALK_SECONDS = 10.0
_DEEPEST = 128
_LONGEST_NAME = 255
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class FileEntry(msgspec.Struct, frozen=True, rename="camel"):
    """A file or directory, as a listing has it."""

    name: str
    path: str
    type: str
    """``file``, ``directory``, ``symlink`` or ``other``."""
    size: int
    last_modified: int
    """Milliseconds since the epoch."""


Entries: TypeAlias = list[FileEntry]
Names: TypeAlias = list[str]


class Listing(msgspec.Struct, frozen=True):
    """What is in a directory: directories first, both by name."""

    entries: list[FileEntry]
    truncated: bool


class Found(msgspec.Struct, frozen=True):
    """Paths of files and directories with a name."""

    paths: list[str]
    truncated: bool


class Matches(msgspec.Struct, frozen=True):
    """Lines that a search has found."""

    matches: list[FileMatch]
    truncated: bool


class FileContent(msgspec.Struct, frozen=True, rename="camel"):
    """A file. ``content`` is a string where it is UTF-8 without NUL, and bytes otherwise."""

    content: str | bytes
    mime_type: str
    size: int
    last_modified: int


class WorkspaceFiles:
    """The files of one workspace. All raise ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE, FORBIDDEN."""

    def __init__(self, root: Path, searching: Searching | None = None) -> None:
        """Look into ``root``, a directory of the server's; None: nothing can be searched for here."""
        self._root = root
        self._searching = searching

    def list(self, path: str = "") -> Listing:
        """Return what is in a directory, at most 5,000 entries."""
        with self._opened(path, _DIRECTORY) as (descriptor, parts):
            prefix = "".join(f"{part}/" for part in parts)
            found: Entries = []
            truncated = False
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if len(found) >= _MAX_LISTED:
                        truncated = True
                        break
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    name = _shown(entry.name)
                    kind = _kind(info.st_mode)
                    found.append(FileEntry(name, prefix + name, kind, info.st_size, _milliseconds(info)))
        found.sort(key=lambda entry: (entry.type != "directory", entry.name))
        return Listing(found, truncated)

    def find(self, name: str) -> Found:
        """Return the paths of at most 1,000 files and directories whose name has ``name`` in it.

        ``*``, ``?`` and ``[…]`` in it make it a pattern for the whole name. Case does not matter. ``.git`` is
        not looked into.
        """
        if not 0 < len(name) <= _LONGEST_NAME:
            raise _wrong("name", f"1 to {_LONGEST_NAME} characters")
        wanted = name.lower()
        is_pattern = any(sign in wanted for sign in "*?[")
        paths = []
        walk = _Walk(self._open_root())
        for path, name_there in walk:
            own = name_there.lower()
            if fnmatch.fnmatchcase(own, wanted) if is_pattern else wanted in own:
                paths.append(path)
                if len(paths) >= _MAX_FOUND:
                    walk.is_cut_off = True
                    break
        return Found(sorted(paths), walk.is_cut_off)

    def search(
        self, query: str, globs: tuple[str, ...] = (), limit: int = 200, *, regexp: bool = False
    ) -> Matches:
        """Return lines with ``query`` in them; upper case counts only where the query has some."""
        if self._searching is None:
            raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: this server has no ripgrep to search with")
        matches, truncated = self._searching.search(self._root, query, globs, limit, regexp=regexp)
        return Matches(matches, truncated)

    def read(self, path: str, most: int = MAX_READ) -> FileContent:
        """Return a file of at most ``most`` bytes."""
        root = self._open_root()
        try:
            descriptor = open_file(root, checked_parts(path), os.fstat(root).st_uid)
        except OSError as exc:
            raise _error(exc) from None
        finally:
            os.close(root)
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(file.fileno())
            if info.st_size > most:
                raise ShareError(
                    ErrorCode.PAYLOAD_TOO_LARGE,
                    f"path: the file has {info.st_size:,} bytes (at most {most:,})",
                )
            data = file.read(most + 1)[:most]
        return FileContent(_text_or_bytes(data), _mime_type(path, data), len(data), _milliseconds(info))

    def _open_root(self) -> int:
        try:
            return open_root(self._root)
        except OSError:
            message = "the workspace's files are not on this server"
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, message) from None

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[tuple[int, Names]]:
        descriptor, parts = self._open(path, flags)
        try:
            yield descriptor, parts
        finally:
            os.close(descriptor)

    def _open(self, path: str, flags: int) -> tuple[int, Names]:
        root = self._open_root()
        try:
            parts = checked_parts(path)
            return open_beneath(root, parts, flags), parts
        except OSError as exc:
            raise _error(exc) from None
        finally:
            os.close(root)


class _Walk:
    """Yields the path and name of all there is, directory by directory, without following a link."""

    def __init__(self, root: int) -> None:
        self._root = root
        self.is_cut_off = False

    def __iter__(self) -> Iterator[tuple[str, str]]:
        end, count = time.monotonic() + _WALK_SECONDS, 0
        waiting = [""]
        try:
            while waiting:
                folder = waiting.pop()
                for entry in self._entries(folder):
                    count += 1
                    if count > _MAX_WALKED or time.monotonic() > end:
                        self.is_cut_off = True
                        return
                    name = _shown(entry.name)
                    path = f"{folder}{name}"
                    yield path, name
                    if entry.name == ".git" or not entry.is_dir(follow_symlinks=False):
                        continue
                    if path.count("/") >= _DEEPEST:
                        self.is_cut_off = True
                    else:
                        waiting.append(f"{path}/")
        finally:
            os.close(self._root)

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """Yield what is in a directory; nothing of one that is gone, or has become a link."""
        try:
            descriptor = open_beneath(self._root, checked_parts(folder), _DIRECTORY)
        except OSError:
            return
        try:
            with os.scandir(descriptor) as entries:
                yield from entries
        except OSError:
            return
        finally:
            os.close(descriptor)


_REASONS = {
    errno.ENOENT: "there is no such file or directory",
    errno.ENOTDIR: "there is no such file or directory",
    errno.EISDIR: "is a directory",
    errno.ELOOP: "a symbolic link is on the way, and none is followed",
    errno.EXDEV: "leads out of the workspace",
    errno.ENAMETOOLONG: "is too long",
    errno.EACCES: "cannot be read",
}


def _error(failed: OSError) -> ShareError:
    why = str(failed.strerror) if isinstance(failed, OutsideError) else _REASONS.get(failed.errno or 0)
    return _wrong("path", why or "cannot be opened")


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def _shown(name: str) -> str:
    """Return a name as a string; of bytes that are not UTF-8, signs stand for them."""
    return os.fsencode(name).decode(errors="replace")


def _text_or_bytes(data: bytes) -> str | bytes:
    if b"\0" in data:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _mime_type(path: str, data: bytes) -> str:
    guessed, encoding = mimetypes.guess_type(path.rpartition("/")[2])
    if guessed is not None and encoding is None:
        return guessed
    return "text/plain" if isinstance(_text_or_bytes(data), str) else "application/octet-stream"


def _milliseconds(info: os.stat_result) -> int:
    return info.st_mtime_ns // 1_000_000


def _wrong(field: str, why: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, f"{field}: {why}")
