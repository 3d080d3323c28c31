"""How long does it take to begin?"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

from bench.figures import Figure
from running_server import RunningServer

# Python's own start is not counted.
_IMPORT = "import time; t = time.perf_counter(); import rpcshare; print(time.perf_counter() - t)"


def import_time() -> float:
    printed = subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True)
    return float(printed.stdout)


def ready_time() -> float:
    """Return the time from the command to the line that says where the server listens, data dir anew."""
    with tempfile.TemporaryDirectory() as folder:
        began = perf_counter()
        with RunningServer(Path(folder) / "data"):
            return perf_counter() - began


def run(*, quick: bool) -> Iterator[Figure]:
    """Yield the medians; the first of each, which may find nothing in the disk's cache, is left out."""
    times = 3 if quick else 7
    measures: tuple[tuple[str, float, Callable[[], float]], ...] = (
        ("import rpcshare", 100, import_time),
        ("rpcshare serve, until it listens", 1000, ready_time),
    )
    for name, target, measure in measures:
        measure()
        yield Figure(name, "ms", statistics.median(measure() for _ in range(times)) * 1e3, None, target)
