"""Run the model at length: python -m tests.model [--steps N] [--seed N] [--worlds N]."""

import argparse
import asyncio
import logging
import secrets
import sys
import tempfile
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))

from model.model import Model, ModelError


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps of nodes, stores and clocks at random.")
    parser.add_argument("--steps", type=int, default=20_000, help="over all worlds")
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the first world")
    options = parser.parse_args()
    # What befalls them is logged as faults of theirs, by the thousand.
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began, failures = time.perf_counter(), 0
    for seed in range(options.seed, options.seed + options.worlds):
        with tempfile.TemporaryDirectory() as folder:
            model = Model(seed, Path(folder))
            try:
                asyncio.run(model.run(options.steps // options.worlds))
            except ModelError as exc:
                failures += 1
                print(f"seed {seed}: {exc}", file=sys.stderr, flush=True)
            else:
                print(f"model, seed {seed}: {model.steps:,} steps, nothing lost or back", flush=True)
    print(f"{options.worlds} worlds in {time.perf_counter() - began:.0f} s, {failures} failed", flush=True)
    sys.exit(bool(failures))


main()
