"""A running server of several workers, for tests that ask for one of them."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.running_server import RunningServer

__all__ = ["only_one_accepts", "until", "worker_pids"]


def worker_pids(server: RunningServer) -> list[int]:
    """Return the process ids of the workers that there are, the oldest first."""
    command = ["pgrep", "-P", str(server.process.pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return sorted(int(pid) for pid in re.findall(r"\d+", found.stdout))


@contextmanager
def only_one_accepts(server: RunningServer, number: int) -> Iterator[None]:
    """Have what connects in this context served by worker ``number``: the others are asleep meanwhile."""
    others = [pid for index, pid in enumerate(worker_pids(server)) if index != number]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def until(condition, what: str, seconds: float = 10.0) -> None:
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
