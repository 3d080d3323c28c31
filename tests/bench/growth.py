"""Does a sync cost what it carries? One part into a share of 200, and into one of 20,000."""

import asyncio
import random
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import rpcshare
from support.running_server import RunningServer

SMALL, LARGE = 200, 20_000
ROUNDS, SYNCS = 9, 60


def part(number: int) -> dict[str, object]:
    """Return a part of about 430 bytes, which is what the recorded traffic has on average."""
    text = " ".join(f"word{random.Random(number + i).randrange(1000)}" for i in range(45))
    data = {"id": f"prt_{number:08d}", "messageID": "msg_1", "type": "text", "text": text}
    return {"type": "part", "data": data}


async def timed(client: rpcshare.ShareClient, share: rpcshare.ShareCredentials, first: int) -> float:
    """Return the milliseconds that one sync of one part takes, one after another."""
    began = perf_counter()
    for number in range(first, first + SYNCS):
        await client.sync_share(share.id, share.secret, [part(number)])
    return (perf_counter() - began) / SYNCS * 1000


async def measure(server: RunningServer) -> dict[str, float]:
    async with rpcshare.ShareClient(server.url, token=server.token) as client:
        shares = {}
        for count in (SMALL, LARGE):
            share = await client.create_share(f"ses_growth_{count:08d}")
            for first in range(0, count, 1000):
                last = min(first + 1000, count)
                await client.sync_share(share.id, share.secret, [part(n) for n in range(first, last)])
            shares[count] = share
        small, large, ratios = [], [], []
        for turn in range(ROUNDS):  # in turn, so that a machine that slows down slows both
            # Updates of parts that are there: the shares keep their size.
            small.append(await timed(client, shares[SMALL], turn * 7 % (SMALL - SYNCS)))
            large.append(await timed(client, shares[LARGE], turn * 977 % (LARGE - SYNCS)))
            ratios.append(large[-1] / small[-1])
    return {
        f"one-part sync into {SMALL:,} parts, ms": statistics.median(small),
        f"one-part sync into {LARGE:,} parts, ms": statistics.median(large),
        "ratio (target: at most 1.5)": statistics.median(ratios),
    }


def run() -> dict[str, float]:
    """Return the medians, each sync durable on disk before it is acknowledged."""
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data") as server:
        return asyncio.run(measure(server))
