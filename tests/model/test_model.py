"""Nodes, stores and clocks at random: some hundred steps. At length: make crash."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.model import Model, ModelError

STEPS = 150
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))]


@pytest.fixture(autouse=True)
def silent():
    """Leave out what nodes log of what befalls them."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_and_nothing_ended_comes_back(tmp_path: Path, seed: int) -> None:
    await Model(seed, tmp_path).run(STEPS)


async def test_a_share_that_loses_a_sync_is_noticed(tmp_path: Path) -> None:
    model = Model(0, tmp_path)
    site = model.world.sites[0]
    await model.world.start()
    await model.create(site)
    await model.sync(site)
    await site.stop()  # what a node has in memory is not looked for in the store
    # It is in the last entry, and by now maybe in a snapshot.
    await site.store.delete([key for key in site.contents() if key.endswith("/000000000002")])
    await site.start()
    with pytest.raises(ModelError, match="has lost"):
        await model.look_at_all(site)
    await model.world.close()


_TRACE = """
import asyncio, logging, sys, tempfile
from pathlib import Path
from model.model import Model

logging.disable(logging.CRITICAL)
with tempfile.TemporaryDirectory() as folder:
    model = Model(105, Path(folder))
    asyncio.run(model.run(200))
    print(*model.trace, sep=chr(10))
"""


@pytest.mark.slow
def test_a_run_is_repeatable_whatever_the_hashes_of_strings_are() -> None:
    traces = []
    for hash_seed in ("0", "1"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        done = subprocess.run(
            [sys.executable, "-c", _TRACE], env=environment, capture_output=True, text=True, check=True
        )
        traces.append(
            [line for line in done.stdout.splitlines() if line[:1].isdigit() and "audit" not in line]
        )
    assert traces[0] == traces[1] != []
