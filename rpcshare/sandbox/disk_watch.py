"""What directories hold on the disk, and a watch that tells when it is too much."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

__all__ = ["DiskUsage", "DiskWatch", "disk_usage"]

_LOOK_EVERY = 0.25
_MEASURE_EVERY = 30.0
_BLOCK = 512  # bytes of st_blocks, whatever the file system's are
_LEAST_STEP = 4 * 2**20
_DEEPEST = 256  # directories in each other, each of which takes a descriptor meanwhile
_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Seen: TypeAlias = set[tuple[int, int]]


class Entries(Protocol):
    """What :func:`os.scandir` returns."""

    def __next__(self) -> os.DirEntry[str]: ...
    def __iter__(self) -> Iterator[os.DirEntry[str]]: ...
    def close(self) -> None:
        """Let go of the directory."""


@dataclass(frozen=True)
class DiskUsage:
    """Bytes that are allocated, and how many files and directories there are."""

    size: int = 0
    files: int = 0
    is_too_deep: bool = False
    """Whether there are more than 256 directories in each other. What is beneath was not counted."""

    def exceeds(self, size: int, files: int) -> bool:
        """Whether this is more than is allowed."""
        return self.size > size or self.files > files or self.is_too_deep


def disk_usage(folders: Sequence[Path], most: DiskUsage | None = None) -> DiskUsage:
    """Return what is in some directories. May take seconds.

    No symbolic link is followed, not even one that takes a directory's place meanwhile. A file with several
    names is counted once. What cannot be looked at, or goes away, is left out.

    Args:
        folders: the directories.
        most: counting ends when there is more than this.
    """
    size = files = 0
    seen: Seen = set()
    for folder in folders:
        for info in _walk(folder):
            if info is None:
                return DiskUsage(size, files, is_too_deep=True)
            files += 1
            if info.st_nlink > 1:
                identity = info.st_dev, info.st_ino
                if identity in seen:
                    continue
                seen.add(identity)
            size += info.st_blocks * _BLOCK
            if most is not None and (size > most.size or files > most.files):
                return DiskUsage(size, files)
    return DiskUsage(size, files)


def _walk(folder: Path) -> Iterator[os.stat_result | None]:
    """Yield what is known of each file and directory; None where it is too deep."""
    opened: list[tuple[int, Entries]] = []

    def enter(name: str | Path, parent: int | None) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.open(name, _OPEN_FLAGS, dir_fd=parent)
            try:
                entries = os.scandir(descriptor)
            except OSError:
                os.close(descriptor)
                raise
            opened.append((descriptor, entries))

    try:
        enter(folder, None)
        while opened:
            descriptor, entries = opened[-1]
            try:
                entry = next(entries, None)
            except OSError:
                entry = None
            if entry is None:
                opened.pop()
                _close(descriptor, entries)
                continue
            try:
                info = entry.stat(follow_symlinks=False)
                is_folder = entry.is_dir(follow_symlinks=False)
            except OSError:
                continue
            yield info
            if is_folder and len(opened) >= _DEEPEST:
                yield None
            elif is_folder:
                enter(entry.name, descriptor)
    finally:
        for each in opened:
            _close(*each)


def _close(descriptor: int, entries: Entries) -> None:
    entries.close()
    os.close(descriptor)


class DiskWatch:
    """Measures directories, the more often the more is written to their file system.

    How much room the file system has is cheap to ask; what the directories hold is measured when that has
    fallen by an eighth of what they may still get, and every 30 seconds.
    """

    def __init__(self, folders: Sequence[Path], size: int, files: int) -> None:
        """Watch ``folders``, which may hold ``size`` bytes in ``files`` files and directories."""
        self._folders = list(folders)
        self._size = size
        self._files = files

    async def until_exceeded(self) -> DiskUsage:
        """Return what they hold when that is more than they may."""
        clock = asyncio.get_running_loop().time
        most = DiskUsage(self._size, self._files)
        while True:
            usage = await asyncio.to_thread(disk_usage, self._folders, most)
            if usage.exceeds(self._size, self._files):
                return usage
            room, names = self._free()
            measured_at = clock()
            step = max(_LEAST_STEP, (self._size - usage.size) // 8)
            while clock() - measured_at < _MEASURE_EVERY:
                await asyncio.sleep(_LOOK_EVERY)
                now, names_now = self._free()
                if room - now >= step or names - names_now >= max(1000, (self._files - usage.files) // 8):
                    break

    def _free(self) -> tuple[int, int]:
        found = [os.statvfs(folder) for folder in self._folders]
        return sum(each.f_bavail * each.f_frsize for each in found), sum(each.f_favail for each in found)
