"""How long does it take to begin?"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter

from bench.figures import Figure
from support.running_server import RunningServer

# Python's own start is not counted.
_IMPORT = "import time; t = time.perf_counter(); import rpcshare; print(time.perf_counter() - t)"


def import_time(environment: Mapping[str, str]) -> float:
    command = [sys.executable, "-c", _IMPORT]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(printed.stdout)


def ready_time(environment: Mapping[str, str]) -> float:
    """Return the time from the command to the line that says where the server listens, data dir anew."""
    with tempfile.TemporaryDirectory() as folder:
        began = perf_counter()
        with RunningServer(Path(folder) / "data", env=environment):
            return perf_counter() - began


def run(*, quick: bool) -> Iterator[Figure]:
    """Yield the medians; the first of each, which has to compile to bytecode, is left out."""
    times = 3 if quick else 7
    measures: tuple[tuple[str, float, Callable[[Mapping[str, str]], float]], ...] = (
        ("import rpcshare", 60, import_time),
        ("rpcshare serve, until it listens", 400, ready_time),
    )
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
        for name, target, measure in measures:
            measure(environment)
            median = statistics.median(measure(environment) for _ in range(times))
            yield Figure(name, "ms", median * 1e3, None, target)
