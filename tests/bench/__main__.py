"""Run the benchmarks and print what they measured."""

import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import growth


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for name, value in growth.run().items():
        print(f"{name:50} {value:8.3f}")


main()
