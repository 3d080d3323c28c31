"""Opening what is beneath a directory, whatever somebody does there meanwhile.

An agent may put a symbolic link in the place of a directory between two looks at it. So the kernel is asked
to resolve the whole path beneath the root, without links (openat2, Linux 5.6). Where it cannot, each
directory is opened from the one above, and none that is a link.

Source: openat2(2): RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from pathlib import Path

__all__ = ["OutsideError", "checked_parts", "open_beneath", "open_file", "open_root"]

_OPENAT2 = 437  # of all machines
_RESOLVE = 0x01 | 0x02 | 0x04 | 0x08
_LONGEST_PATH = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OutsideError(OSError):
    """A path leads out, or to what is no file and no directory. The message says which; it names no path."""


_libc = ctypes.CDLL(None, use_errno=True)


def open_root(root: Path) -> int:
    """Return a descriptor of a workspace's directory. Raises OSError."""
    return os.open(root, _DIRECTORY)


def checked_parts(path: str) -> list[str]:
    """Return the names that a path is made of; none for the root itself.

    Raises:
        OutsideError: it is absolute, or goes up, or is no path at all.
    """
    if "\0" in path or len(path) > _LONGEST_PATH:
        raise OutsideError(errno.EINVAL, "that is no path")
    if path.startswith("/"):
        raise OutsideError(errno.EINVAL, "a path begins at the workspace, and with no slash")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OutsideError(errno.EINVAL, "a path does not go up")
    try:
        "/".join(parts).encode()
    except UnicodeEncodeError:
        raise OutsideError(errno.EINVAL, "that is no path") from None
    return parts


def open_beneath(root: int, parts: list[str], flags: int) -> int:
    """Open what is at a path beneath ``root``, and never what a link or another file system leads to.

    Raises:
        OSError: it is not there, or ELOOP, EXDEV: a link or a mount is on the way.
    """
    if not parts:
        return os.dup(root)
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return _openat2(root, "/".join(parts), flags)
    except OSError as exc:
        if exc.errno not in (errno.ENOSYS, errno.EPERM, errno.E2BIG):
            raise
    return _walk(root, parts, flags)


def open_file(root: int, parts: list[str], owner: int) -> int:
    """Open a regular file for reading. It is looked at before it is opened: a FIFO or a device never is.

    Args:
        root: a descriptor of the workspace.
        parts: the names of the path.
        owner: the user who writes in the workspace. A file with several names that is another's is refused:
            one of its names may be elsewhere.

    Raises:
        OutsideError: it is no regular file, or may be one of elsewhere.
        OSError: it is not there, or a link is on the way.
    """
    if not parts:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    found = open_beneath(root, parts, os.O_PATH)
    try:
        info = os.fstat(found)
        _require_file(info, owner)
        opened = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        _require_file(os.fstat(opened), owner)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _require_file(info: os.stat_result, owner: int) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISLNK(info.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(info.st_mode):
        raise OutsideError(errno.EINVAL, "that is no file, but a device, a socket or a pipe")
    if info.st_nlink > 1 and info.st_uid != owner:
        raise OutsideError(errno.EXDEV, "that is a hard link to a file of another user")


def _openat2(root: int, path: str, flags: int) -> int:
    how = struct.pack("=QQQ", flags, 0, _RESOLVE)
    found = _libc.syscall(_OPENAT2, root, ctypes.c_char_p(os.fsencode(path)), ctypes.c_char_p(how), len(how))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)


def _walk(root: int, parts: list[str], flags: int) -> int:
    """Do what openat2 does, name by name."""
    device = os.fstat(root).st_dev
    here = os.dup(root)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
            if os.fstat(here).st_dev != device:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return os.open(parts[-1], flags, dir_fd=here)
    finally:
        os.close(here)
