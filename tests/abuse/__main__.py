"""Run every kind of caller, or those that are named, each against a server of its own.

``python -m tests.abuse [--seed N] [--seconds S] [KIND …]``; a KIND may be a pattern, such as ``rpc-*``.
"""

import argparse
import random
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from abuse.callers import Kind, all_kinds
from abuse.target import MEMORY_LIMIT, running_target

SLOWEST = 1.0  # seconds, for /healthz
GROWTH = 50 * 2**20  # bytes, when the caller has gone
SETTLING = 20.0  # seconds that it may take to get there
MB = 2**20


def run(name: str, kind: Kind, seed: int, seconds: float, folder: Path) -> list[str]:
    """Run one kind; return what is wrong with what was seen."""
    wrong: list[str] = []
    options = getattr(kind, "options", lambda _folder: ())(folder)
    with running_target(folder / "data", *options) as (target, watched):
        try:
            kind(target, random.Random(f"{seed} {name}"), seconds)
        except Exception as exc:  # noqa: BLE001 -- one kind that fails is no reason not to try the others
            wrong.append(f"the caller failed: {exc!r}")
        after = watched.after(GROWTH, SETTLING)
        status = target.process.poll()
        slowest, most, polls = watched.worst()
        log = target.log.read_text()
    if status is not None:
        wrong.append(f"the server died with {status}")
    if slowest > SLOWEST:
        wrong.append(f"/healthz took {slowest:.2f} s")
    if most > MEMORY_LIMIT:
        wrong.append(f"it had {most // MB} MB")
    if after > watched.before + GROWTH:
        wrong.append(f"{(after - watched.before) // MB} MB more than before were left")
    print(
        f"{name:28} slowest /healthz {slowest:5.2f} s   memory {watched.before // MB:4} → {most // MB:4} → "
        f"{after // MB:4} MB   {polls:4} polls   {'; '.join(wrong) or 'ok'}",
        flush=True,
    )
    if wrong and log:
        print("  | " + "\n  | ".join(log[-2000:].splitlines()), flush=True)
    return wrong


def main() -> int:
    """Run what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of what is generated; 0: another each time")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each kind")
    parser.add_argument("kinds", nargs="*", metavar="KIND", default=["*"])
    given = parser.parse_args()
    seed = given.seed or random.SystemRandom().randrange(1, 10**9)
    chosen = {
        name: kind
        for name, kind in all_kinds().items()
        if any(fnmatch(name, pattern) for pattern in given.kinds)
    }
    print(f"seed {seed}, {len(chosen)} kinds of callers, {given.seconds:g} s each", flush=True)
    failed = 0
    for name, kind in chosen.items():
        with tempfile.TemporaryDirectory() as folder:
            failed += bool(run(name, kind, seed, given.seconds, Path(folder)))
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
