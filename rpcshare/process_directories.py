"""Temporary directories of this process, which do not outlast it for long, however it ends.

A process that is killed removes nothing. So the name of each directory has a token of its process, which
holds a lock on a file of that token as long as it lives: ``rpcs-TOKEN.lock`` beside ``rpcs-TOKEN-KIND-…``,
both where the system keeps such. A server that starts removes what belongs to tokens whose lock nobody holds.
The lock is not within the directories: programs in sandboxes see those.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["process_directory", "remove_left_behind"]

logger = logging.getLogger("rpcshare")

_LOCK = re.compile(r"rpcs-([0-9a-f]{8})\.lock")
_token: tuple[int, str] | None = None


def process_directory(kind: str) -> tempfile.TemporaryDirectory[str]:
    """Return a new directory, which its ``cleanup`` removes, or else the end of the process.

    Args:
        kind: a short word for whoever looks at its name; paths of sockets are short.

    Raises:
        OSError: it cannot be made.
    """
    return tempfile.TemporaryDirectory(prefix=f"rpcs-{_own_token()}-{kind}-", ignore_cleanup_errors=True)


def remove_left_behind() -> int:
    """Remove the directories of this user's processes that were killed; return how many there were."""
    root = Path(tempfile.gettempdir())
    removed = 0
    with contextlib.suppress(OSError):
        names = os.listdir(root)  # noqa: PTH208 -- names are all that is looked at
        for name in names:
            found = _LOCK.fullmatch(name)
            if found is not None:
                removed += _remove_of(root, found[1], names)
    if removed:
        logger.info("temporary directories of a process that was killed have been removed: %d", removed)
    return removed


def _own_token() -> str:
    """Return the token of this process, whose lock it holds from now on; a fork has one of its own."""
    global _token  # noqa: PLW0603 -- one for each process
    if _token is not None and _token[0] == os.getpid():
        return _token[1]
    token = secrets.token_hex(4)
    # Under its name it is there only once it is locked: whoever finds it unlocked takes it for a dead one's.
    descriptor, unnamed = tempfile.mkstemp(prefix=".rpcs-")
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # held until the process ends, since nobody closes it
    path = Path(unnamed).rename(Path(unnamed).with_name(f"rpcs-{token}.lock"))
    _token = os.getpid(), token
    atexit.register(_remove_lock, path, os.getpid())
    return token


def _remove_lock(path: Path, pid: int) -> None:
    if os.getpid() == pid:
        path.unlink(missing_ok=True)


def _remove_of(root: Path, token: str, names: list[str]) -> int:
    """Remove the directories of a token if nobody holds its lock."""
    lock, removed = root / f"rpcs-{token}.lock", 0
    with contextlib.suppress(OSError):  # it is gone, a link, somebody else's, or its process lives
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not _is_own(os.fstat(descriptor), stat.S_ISREG):
                return 0
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in names:
                path = root / name
                if name.startswith(f"rpcs-{token}-") and _is_own(path.lstat(), stat.S_ISDIR):
                    shutil.rmtree(path, ignore_errors=True)
                    removed += not path.exists()
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
    return removed


def _is_own(found: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    return is_kind(found.st_mode) and found.st_uid == os.geteuid()
