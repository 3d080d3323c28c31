"""Tells whether the server process that has started a sandbox still runs.

A killed server leaves containers behind. Several processes of one server share a data directory and an
engine, so each locks a file of its own there, whose name its sandboxes carry. The kernel gives up the lock
with the process, in whichever container it ran.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from pathlib import Path

__all__ = ["InstanceLock"]

_ID = re.compile(r"[0-9a-f]{16}")


class InstanceLock:
    """The lock of this process. Held until it is released, or the process ends."""

    def __init__(self, folder: Path) -> None:
        """Lock a new file in ``folder``, which is made if need be. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.id = secrets.token_hex(8)
        self._folder = folder
        new = folder / f".{self.id}.new"
        self._descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        new.rename(self._file(self.id))  # nobody sees it before it is locked

    def _file(self, instance: str) -> Path:
        return self._folder / f"{instance}.lock"

    def runs(self, instance: str) -> bool:
        """Whether the process with this id still runs. Of one that does not, the file is removed."""
        if instance == self.id:
            return True
        if not _ID.fullmatch(instance):
            return False
        try:
            descriptor = os.open(self._file(instance), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            self._file(instance).unlink()
        return False

    def release(self) -> None:
        """Give it up. To be called once."""
        with contextlib.suppress(OSError):
            self._file(self.id).unlink()
        os.close(self._descriptor)
