"""Fuzz sessions at length: python -m tests.fuzz [--messages N] [--seed N]."""

import argparse
import asyncio
import gc
import secrets
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.fuzzer import ENCODINGS, Fuzzer, resident_bytes

# What the process may have grown by in the end: fragmentation and caches, but nothing that adds up.
GROWTH = 16 * 1024 * 1024


async def fuzz(encoding: str, messages: int, seed: int) -> list[str]:
    """Send that many spoilt messages; return what went wrong."""
    fuzzer = Fuzzer(encoding, seed)
    await fuzzer.run(messages // 10)
    gc.collect()
    gc.freeze()
    before, began = resident_bytes(), time.perf_counter()
    await fuzzer.run(messages - messages // 10)
    grown = resident_bytes() - before
    findings = fuzzer.findings
    print(
        f"{encoding}, seed {seed}: {findings.spoilt:,} spoilt messages among {findings.messages:,} in "
        f"{findings.sessions:,} sessions, {findings.aborted:,} of which were aborted; "
        f"the slowest took {findings.slowest * 1000:.1f} ms; {time.perf_counter() - began:.0f} s; "
        f"memory {grown / 1e6:+.1f} MB",
        flush=True,
    )
    if grown > GROWTH:
        findings.faults.append(f"memory grew by {grown:,} bytes")
    if left := len(fuzzer.sessions):
        findings.faults.append(f"{left} sessions are still reachable")
    return findings.faults


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz sessions with spoilt messages.")
    parser.add_argument("--messages", type=int, default=200_000, help="spoilt ones, over both encodings")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    options = parser.parse_args()
    faults: list[str] = []
    for encoding in ENCODINGS:
        faults += asyncio.run(fuzz(encoding, options.messages // len(ENCODINGS), options.seed))
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(faults))


main()
