"""Watches a server from outside, in a process of its own: how fast it answers, and how much memory it has.

Not from the caller's process, which is busy with what it sends and would find its own delays.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Watched", "memory_of", "watching"]

_EVERY = 0.05  # seconds
_PATIENCE = 30.0


def memory_of(pid: int) -> int:
    """Return how many bytes of memory a process has, with those that its children have for themselves."""
    held = _status(pid, "VmRSS")
    left = _children(pid)
    while left:
        child = left.pop()
        held += _status(child, "RssAnon")
        left += _children(child)
    return held


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, file.read_text().split())
    return children


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


class Watched:
    """What has been seen of a server so far."""

    def __init__(self, pid: int, lines: Path) -> None:
        self._pid = pid
        self._lines = lines
        self.before = memory_of(pid)

    def after(self, within: int, patience: float) -> int:
        """Wait until memory is at most ``within`` bytes above what it was; return what it is then."""
        deadline = time.monotonic() + patience
        while (now := memory_of(self._pid)) > self.before + within and time.monotonic() < deadline:
            time.sleep(0.25)
        return now

    def worst(self) -> tuple[float, int, int]:
        """Return the slowest answer in seconds, the most memory in bytes, and how many polls were made."""
        seen = [line.split() for line in self._lines.read_text().splitlines() if line.endswith(".")]
        return (
            max((float(latency) for latency, *_ in seen), default=0.0),
            max((int(memory) for _, memory, *_ in seen), default=0),
            len(seen),
        )


@contextlib.contextmanager
def watching(pid: int, port: int) -> Iterator[Watched]:
    """Poll the server until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "polls")
        with lines.open("w") as out:
            poller = subprocess.Popen([sys.executable, __file__, str(pid), str(port)], stdout=out)
        try:
            yield Watched(pid, lines)
        finally:
            poller.terminate()
            poller.wait()


def _poll(pid: int, port: int) -> None:
    while True:
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        try:
            connection.request("GET", "/healthz")
            is_well = connection.getresponse().read() == b'{"status":"ok"}'
        except OSError:
            is_well = False
        finally:
            connection.close()
        latency = time.perf_counter() - began if is_well else _PATIENCE
        print(f"{latency:.4f} {memory_of(pid)} .", flush=True)
        time.sleep(_EVERY)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _poll(int(sys.argv[1]), int(sys.argv[2]))
