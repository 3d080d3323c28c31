"""Load, a kill, and a look at what is left: one round after the other on one store."""

import asyncio
import random
import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import rpcshare
from rpcshare import jsontext
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.findings import Problem, Report
from rpcshare.maintenance.stored_share import read_share
from rpcshare.shares.state import ShareState
from rpcshare.storage import ObjectStore, SqliteStore
from support.running_server import RunningServer

SHARES = 4
WRITERS = 3  # of each share
TEXT_SIZE = 800  # bytes, on average
LONGEST_ROUND = 0.6  # seconds from the first call to the kill

EXPECTED = {Problem.INDEX, Problem.UNFINISHED, Problem.LEFTOVER}
"""What a server that is killed may leave behind, and what is put right."""


class EagerServer(RunningServer):
    command = (sys.executable, str(Path(__file__).with_name("eager_server.py")))


class Ledger:
    """What the server has acknowledged, over all rounds."""

    def __init__(self) -> None:
        self.syncs: defaultdict[str, list[int]] = defaultdict(list)  # the numbers, by share
        self.deleted: set[str] = set()
        self.created: set[str] = set()

    @property
    def size(self) -> int:
        return sum(map(len, self.syncs.values())) + len(self.deleted) + len(self.created)


class Kills:
    """A server in ``folder`` that is killed again and again. The same ``seed`` makes the same load."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.data_dir = folder / "data"
        self.ledger = Ledger()
        self.problems: set[Problem] = set()  # of all that the kills left behind
        self._random = random.Random(seed)
        self._numbers = iter(range(10**9))
        self._rounds = 0

    async def round(self) -> None:
        """Start the server, load and kill it, and check that nothing is missing and nothing is wrong."""
        self._rounds += 1
        server = await asyncio.to_thread(EagerServer, self.data_dir)
        try:
            await self._load(server)
        finally:
            server.kill()
        store = await SqliteStore.open(self.data_dir / "store.sqlite3")
        try:
            await self._check(store)
        finally:
            await store.close()

    async def _load(self, server: RunningServer) -> None:
        async with rpcshare.ShareClient(server.url, token=server.token) as client:
            shares = [await client.create_share(f"ses_written_{number:08d}") for number in range(SHARES)]
            tasks = [self._write(client, share) for share in shares for _ in range(WRITERS)]
            running = [asyncio.create_task(task) for task in (*tasks, self._create_and_delete(client))]
            await asyncio.sleep(self._random.uniform(0.02, LONGEST_ROUND))
            server.kill()
            await asyncio.gather(*running)

    async def _write(self, client: rpcshare.ShareClient, share: rpcshare.ShareCredentials) -> None:
        with suppress(rpcshare.SessionClosedError):
            for number in self._numbers:
                # A diff is never replaced: it shows that its sync took place, and how often.
                text = self._random.randbytes(self._random.randrange(TEXT_SIZE)).hex()
                part = {"id": f"prt_{number % 40}", "number": number, "text": text}
                data: list[dict[str, Any]] = [
                    {"type": "part", "data": part},
                    {"type": "session_diff", "data": [{"number": number}]},
                ]
                await client.sync_share(share.id, share.secret, data)
                self.ledger.syncs[share.id].append(number)

    async def _create_and_delete(self, client: rpcshare.ShareClient) -> None:
        with suppress(rpcshare.SessionClosedError):
            for number in self._numbers:
                part = {"id": "prt", "text": "x" * self._random.randrange(TEXT_SIZE)}
                share = await client.create_share(f"ses_{number:08d}", [{"type": "part", "data": part}])
                self.ledger.created.add(share.id)
                if self._random.random() < 0.7:
                    self.ledger.created.discard(share.id)  # from here on it may be there, or not
                    await client.delete_share(share.id, share.secret)
                    self.ledger.deleted.add(share.id)

    async def _check(self, store: ObjectStore) -> None:
        fix = self._rounds % 2 == 0  # every other time the next server has to cope
        report = await examine(store, fix=fix, grace=0.0, patience=0.0)
        unexpected = [finding for finding in report.findings if finding.problem not in EXPECTED]
        assert not unexpected, unexpected
        self.problems |= {finding.problem for finding in report.findings}
        if fix:
            await self._check_that_all_is_well(store, report)
        await self._check_that_nothing_is_missing(store)

    async def _check_that_all_is_well(self, store: ObjectStore, report: Report) -> None:
        assert report.is_well
        again = await examine(store, grace=0.0, patience=0.0)
        assert (again.findings, again.superfluous) == ([], 0)

    async def _check_that_nothing_is_missing(self, store: ObjectStore) -> None:
        for share_id, acknowledged in self.ledger.syncs.items():
            share = await read_share(store, share_id)
            assert share is not None
            state = ShareState(share_id, share.head.session_id, share.head.created_at)
            state.restore(share.snapshot.items, share.snapshot.sync_count, share.snapshot.last_updated)
            found = jsontext.decode(state.agent_session())
            numbers = [diff["number"] for diff in found["diffs"]]
            assert len(set(numbers)) == len(numbers) == state.sync_count  # each sync once
            assert set(acknowledged) <= set(numbers)  # and none missing
            # What was replaced was replaced by something newer in the log.
            newest = {f"prt_{number % 40}": number for number in numbers}
            assert {part["id"]: part["number"] for part in found["parts"]} == newest
        for share_id in self.ledger.created:
            assert await read_share(store, share_id) is not None
        for share_id in self.ledger.deleted:
            assert await read_share(store, share_id) is None
