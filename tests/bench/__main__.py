"""Run the benchmarks and print what they measured."""

import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import growth, writes


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for name, value in (growth.run() | writes.run()).items():
        print(f"{name:100} {value:8.3f}")


main()
