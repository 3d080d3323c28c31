"""What the kernel takes for an event and a call: of a server in C that does nothing but send and receive."""

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("socket_floor.c")
ROUNDS = 5

MEASURED = {
    "an event to each of 100 connections: CPU in C, without more than that, µs": ("events", 100, 200, 0),
    "an event, with a pause of 50 µs before each wait, µs": ("events", 100, 200, 50),
    "a call, 64 in flight: CPU in C, without more than that, µs": ("calls", 64, 20_000, 0),
    "a call, with a pause of 50 µs before each wait, µs": ("calls", 64, 20_000, 50),
}


def run() -> dict[str, float]:
    """Return the medians; nothing where there is no compiler, or no Linux."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        print("what the kernel takes: not measured, it needs Linux and a C compiler", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "socket_floor")
        subprocess.run([compiler, "-O2", "-o", program, str(SOURCE)], check=True)
        times: dict[str, list[float]] = {name: [] for name in MEASURED}
        for _ in range(ROUNDS):
            for name, options in MEASURED.items():
                command = [program, *map(str, options)]
                said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
                times[name].append(float(said.stdout.split()[0]))
    return {name: statistics.median(each) for name, each in times.items()}
