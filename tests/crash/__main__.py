"""Kill a server under load, 200 times or as often as the argument says."""

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash.kills import Kills, Ledger

ROUNDS = 200


def report(number: int, ledger: Ledger) -> None:
    syncs = sum(map(len, ledger.syncs.values()))
    print(
        f"{number:4} kills: nothing missing of {syncs:,} syncs, {len(ledger.created):,} shares "
        f"and {len(ledger.deleted):,} deletions",
        flush=True,
    )


async def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kills = Kills(Path(folder), seed=2)
        for number in range(1, rounds + 1):
            await kills.round()
            if number % 10 == 0 or number == rounds:
                report(number, kills.ledger)
        print("put right afterwards:", ", ".join(sorted(kills.problems)) or "nothing")


asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
