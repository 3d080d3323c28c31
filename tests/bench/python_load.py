"""Load for the benchmarks, from this project's client: python python_load.py URL TOKEN.

Takes the commands of tests/node/bench_load.mjs, of which it knows one.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from time import perf_counter

import rpcshare

PROBE = {
    "when": datetime.fromtimestamp(1234567890.123, UTC),
    "bytes": bytes(16),
    "nested": {"list": [1, "two", {"three": 3}]},
}


async def calls(url: str, token: str, number: int, at_once: int) -> float:
    """Make calls, ``at_once`` of them under way; return milliseconds in all."""
    async with rpcshare.connect(url, token=token) as api:
        await api.probeValue(PROBE)
        left = iter(range(number))

        async def work() -> None:
            for _ in left:
                await api.probeValue(PROBE)

        began = perf_counter()
        await asyncio.gather(*(work() for _ in range(at_once)))
        return (perf_counter() - began) * 1000


def main() -> None:
    url, token = sys.argv[1:]
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            name, *rest = json.loads(line)
            if name != "calls":
                sys.exit(f"there is no command {name}")
            print(json.dumps(runner.run(calls(url, token, *rest))), flush=True)


main()
