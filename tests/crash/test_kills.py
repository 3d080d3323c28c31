"""A server that is killed under load loses nothing that it has acknowledged."""

from pathlib import Path

import pytest

from crash.kills import Kills

pytestmark = pytest.mark.rare

ROUNDS = 8


async def test_kills_under_load_lose_nothing_and_leave_nothing_wrong(tmp_path: Path) -> None:
    kills = Kills(tmp_path, seed=1)
    for _ in range(ROUNDS):
        await kills.round()
    assert kills.ledger.size > 10 * ROUNDS  # there was load, on a busy machine too
