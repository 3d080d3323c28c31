"""Turns at writing, among processes that write to one SQLite file all the time.

SQLite gives its lock to whoever asks at the right moment, and has the others ask again after pauses of up
to 100 ms: of two that write without a break, one may ask in vain until its time is up. Here whoever waits
is next.

There are two locks, on files beside the store. Who wants to write waits for *next* and then, holding it,
for *turn*; with *turn* it lets go of *next*. Who has written and has more has to get behind *next*, which
somebody holds who waits. The kernel releases the locks of a process that dies.
"""

import fcntl
import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

__all__ = ["FairLock"]

# For so many seconds a turn is waited for. It makes nothing safe, SQLite's own lock does: behind a process
# that holds a turn and does not go on, one does without.
_PATIENCE = 1.0

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0001, 0.002  # seconds: a commit takes between the two, or a little longer


class FairLock:
    """The turns of one process, or of one of several connections: a context in which it is its turn."""

    def __init__(self, path: Path) -> None:
        """Take turns with all that write to the SQLite file at ``path``.

        Raises:
            OSError: the files beside it cannot be made.
        """
        with ExitStack() as opened:
            self._next, self._turn = (_opened(path, suffix, opened) for suffix in ("-next", "-turn"))
            opened.pop_all()

    def __enter__(self) -> None:
        """Wait until it is this one's turn."""
        deadline = time.monotonic() + _PATIENCE
        if _locked(self._next, deadline):
            _locked(self._turn, deadline)
            fcntl.flock(self._next, fcntl.LOCK_UN)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the next one write."""
        fcntl.flock(self._turn, fcntl.LOCK_UN)  # no error if it is not held

    def close(self) -> None:
        """Close the files."""
        os.close(self._next)
        os.close(self._turn)


def _opened(path: Path, suffix: str, opened: ExitStack) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path.with_name(path.name + suffix), flags, 0o600)
    opened.callback(os.close, descriptor)
    return descriptor


def _locked(descriptor: int, deadline: float) -> bool:
    """Lock a file, unless that takes too long."""
    # Asked for again and again: the kernel has no wait for a lock that ends at some time.
    pause = _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return True
