"""What it costs to index what is shared: CPU of the server for a sync, and how quickly all is made again."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx

import rpcshare
from bench.figures import Figure
from bench.session_texts import texts
from bench.writes import long_session
from support.running_server import RPCSHARE, RunningServer, bare_environment

SHARES, EVERY = 32, 0.25  # seconds between two syncs of a share
RESTS = 7.0  # seconds until all is indexed


class UnindexedServer(RunningServer):
    command = (sys.executable, str(Path(__file__).with_name("unindexed_server.py")))


def cpu(server: RunningServer) -> float:
    """Return the seconds of CPU that a server has taken."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def synced(server: RunningServer, syncs: int) -> float:
    """Return the milliseconds of CPU that a server takes for a sync of a session as opencode sends them."""
    async with rpcshare.ShareClient(server.url, token=server.token) as client:
        shares = [await client.create_share(f"ses_index_{number:08d}") for number in range(SHARES)]
        headers = {"Authorization": f"Bearer {server.token}"}
        if not isinstance(server, UnindexedServer):
            async with httpx.AsyncClient(headers=headers, timeout=60) as browser:
                (await browser.get(f"{server.url}/api/search?q=x")).raise_for_status()
        before = cpu(server)

        async def session(share: rpcshare.ShareCredentials) -> None:
            for batch in islice(long_session(), syncs):
                await client.sync_share(share.id, share.secret, batch)
                await asyncio.sleep(EVERY)

        await asyncio.gather(*map(session, shares))
        await asyncio.sleep(RESTS)
        return (cpu(server) - before) / (SHARES * syncs) * 1e3


def cost_of_syncs(*, quick: bool) -> Figure:
    """Compare a server that indexes with one that does not, in turn."""
    found: dict[type[RunningServer], list[float]] = {RunningServer: [], UnindexedServer: []}
    for turn in range(1 if quick else 6):
        # Each is the first of a pair as often as the other.
        for kind in list(found)[:: -1 if turn % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder, kind(Path(folder) / "data") as server:
                found[kind].append(asyncio.run(synced(server, 20 if quick else 60)))
    on, off = (statistics.median(times) * 1e3 for times in found.values())
    return Figure("CPU of a sync, indexed and not", "µs", on, off, 1.15)


def reindexed(*, quick: bool) -> Iterator[Figure]:
    """Yield how long it takes to index a megabyte of text, and what the index takes on disk."""
    size, of_share = (10 if quick else 100) * 10**6, 500_000
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data") as server:
        with rpcshare.connect_blocking(server.url, token=server.token) as client:
            left, shared, number, data = texts(size), 0, 0, []
            for part, text in enumerate(left):
                message = {"id": f"msg_{part}", "role": "user", "time": {"created": 1_700_000_000_000 + part}}
                data.append({"type": "message", "data": message})
                body = {"id": f"prt_{part}", "messageID": f"msg_{part}", "type": "text", "text": text}
                data.append({"type": "part", "data": body})
                shared += len(text)
                if shared >= of_share * (number + 1):
                    client.create_share(f"ses_text_{number:08d}", data)
                    number, data = number + 1, []
        server.stop()
        database = server.data_dir / "database.sqlite3"
        for path in server.data_dir.glob("database.sqlite3*"):
            path.unlink()
        began = time.perf_counter()
        command = [RPCSHARE, "reindex", "--json", f"--data-dir={server.data_dir}"]
        told = subprocess.run(command, check=True, capture_output=True, text=True, env=bare_environment())
        took = time.perf_counter() - began
        assert json.loads(told.stdout), told
        yield Figure("reindex, of a megabyte of text", "ms", took / (shared / 1e6) * 1e3, None, 50)
        yield Figure("the index, for a byte of text", "B", database.stat().st_size / shared, None, 3)


def run(*, quick: bool) -> Iterator[Figure]:
    """Yield both."""
    yield cost_of_syncs(quick=quick)
    yield from reindexed(quick=quick)
