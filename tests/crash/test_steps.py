"""A server that is killed at any named step of what is done to a share, and what the next one finds.

Afterwards all that was acknowledged is there, the share can be read or is deleted for good, what was
interrupted can be done again, and ``rpcshare doctor`` has nothing to say.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import rpcshare
from crash.steps import APPENDING, COMPACTING, CREATING, DELETING, STEPS, UPGRADING
from rpcshare.maintenance.doctor import examine
from rpcshare.storage import ObjectStore, open_store
from support.older_shares import SECRET, older_index, older_share, put_older
from support.running_server import RunningServer
from support.s3_server import ENDPOINT_VARIABLE, moto_server, real_server

pytestmark = pytest.mark.rare

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
DEATH_TIMEOUT = 10.0  # seconds; the slowest step is two after the call


class MortalServer(RunningServer):
    command = (sys.executable, str(Path(__file__).with_name("mortal_server.py")))

    def __init__(self, folder: Path, store_url: str) -> None:
        self.store_url = store_url
        self.is_well = True
        self._die_at = folder / "die-at"
        super().__init__(folder / "data", f"--store={store_url}", env={"DIE_AT": str(self._die_at)})

    def die_at(self, step: str) -> None:
        """Let it die when it comes to ``step``, from now on and once."""
        self.is_well = False
        being_written = self._die_at.with_suffix(".new")
        being_written.write_text(step)
        being_written.replace(self._die_at)

    async def rebirth(self) -> None:
        """Start it anew once it has died: at the step, and of nothing else."""
        assert await asyncio.to_thread(self.process.wait, DEATH_TIMEOUT) == -signal.SIGKILL
        assert not self._die_at.exists()
        await asyncio.to_thread(self.restart)

    def client(self) -> rpcshare.ShareClient:
        return rpcshare.ShareClient(self.url, token=self.token)


@pytest.fixture(scope="module")
def bucket_url() -> Iterator[str]:
    """A place in a bucket: a real server's where there is one, else moto's."""
    with real_server() if os.environ.get(ENDPOINT_VARIABLE) else moto_server() as s3:
        location = s3.location()
        yield f"s3://{location.bucket}/{location.prefix}?endpoint_url={location.endpoint_url}&region=us-east-1"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, MortalServer]]:
    """Those that earlier tests have left well, by where they keep their shares: a start takes long."""
    servers: dict[str, MortalServer] = {}
    yield servers
    for server in servers.values():
        server.kill()


@pytest.fixture
def server(
    request: pytest.FixtureRequest, servers: dict[str, MortalServer], tmp_path: Path
) -> Iterator[MortalServer]:
    where: str = request.param
    server = servers.pop(where, None)
    if server is None:
        in_file = f"sqlite:///{tmp_path / 'store.sqlite3'}"
        url = in_file if where == "file" else request.getfixturevalue("bucket_url")
        server = MortalServer(tmp_path, url)
    yield server
    if server.is_well:
        servers[where] = server
    else:
        server.kill()


def each_step(group: Iterable[str], *, on_bucket: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Run a test for each step of a group, and for those that may differ there on a bucket as well."""
    cases = [pytest.param("file", step, id=step) for step in group]
    cases += [pytest.param("bucket", step, id=f"{step}, on a bucket") for step in on_bucket]
    return pytest.mark.parametrize(("server", "step"), cases, indirect=["server"])


@pytest.fixture
def session(step: str) -> str:
    """The session of the share that the test is about."""
    return f"ses_step_{list(STEPS).index(step):08d}"


def batch(number: int) -> list[dict[str, Any]]:
    # A diff is never replaced: it shows that its sync took place, and how often.
    return [
        {"type": "part", "data": {"id": f"prt_{number}", "text": "what was said"}},
        {"type": "session_diff", "data": [{"number": number}]},
    ]


async def numbers(client: rpcshare.ShareClient, share_id: str) -> list[int]:
    """Return the numbers of all syncs that the share has had."""
    share = await client.get_share(share_id)
    found: list[int] = [diff["number"] for diff in share["diffs"]]
    assert [part["id"] for part in share["parts"]] == [f"prt_{n}" for n in dict.fromkeys(found)]
    assert share["metadata"]["syncCount"] == len(found)
    return found


async def is_acknowledged(call: Awaitable[object]) -> bool:
    """Return whether ``call`` was answered before the server died."""
    try:
        await call
    except rpcshare.SessionClosedError:
        return False
    return True


async def is_found(call: Awaitable[object]) -> bool:
    try:
        await call
    except rpcshare.ShareError as exc:
        if exc.code is not rpcshare.ErrorCode.SHARE_NOT_FOUND:
            raise
        return False
    return True


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[ObjectStore]:
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.close()


async def are_listed(client: rpcshare.ShareClient, session: str, share_ids: set[str]) -> None:
    """Return once just these shares are listed.

    The one that was made right before the kill has not been written down to be listed; what compares the
    store with that list after a start finds it.
    """
    async with asyncio.timeout(20):
        while True:
            listed = await client.list_shares(query=session)
            if {share.id for share in listed.sessions} == share_ids:
                return
            await asyncio.sleep(0.05)


async def all_is_well(server: MortalServer, *, tombstones: int = 0) -> None:
    """Return once the store is as it should be, except for ``tombstones`` that nobody will remove."""
    async with opened(server.store_url) as store:
        while True:
            report = await examine(store, patience=0.0)
            if not report.findings and report.superfluous == tombstones:
                break
            await asyncio.sleep(0.05)
        if tombstones:
            assert (await examine(store, fix=True, grace=0.0, patience=0.0)).superfluous == 0
    server.is_well = True


@each_step(CREATING, on_bucket=["session claimed", "head written"])
async def test_creating(server: MortalServer, session: str, step: str) -> None:
    async with server.client() as client:
        other = await client.create_share(f"{session}_other", batch(0))
        server.die_at(step)
        assert not await is_acknowledged(client.create_share(session, batch(1)))
    await server.rebirth()
    async with server.client() as client:
        has_head = step == "head written"
        assert await is_found(client.get_share(session[-8:])) == has_head
        made = await client.create_share(session, batch(1))
        assert made.id == session[-8:]
        assert await numbers(client, made.id) == [1]
        assert await client.create_share(session) == made
        assert await numbers(client, other.id) == [0]
        await are_listed(client, session, {made.id, other.id})
    await all_is_well(server)


@each_step(APPENDING, on_bucket=["entry unwritten", "entry durable"])
async def test_appending(server: MortalServer, session: str, step: str) -> None:
    async with server.client() as client:
        share = await client.create_share(session, batch(0))
        await client.sync_share(share.id, share.secret, batch(1))
        server.die_at(step)
        is_acked = await is_acknowledged(client.sync_share(share.id, share.secret, batch(2)))
        assert not is_acked
        await server.rebirth()
    async with server.client() as client:
        found = await numbers(client, share.id)
        assert found == ([0, 1] if step == "entry unwritten" else [0, 1, 2])
        assert await client.sync_share(share.id, share.secret, batch(2)) == len(found) + 1
        assert await numbers(client, share.id) == [*found, 2]
    await all_is_well(server)


@each_step(COMPACTING, on_bucket=["snapshot written", "log half trimmed"])
async def test_compacting(server: MortalServer, session: str, step: str) -> None:
    async with server.client() as client:
        share = await client.create_share(session)
        server.die_at(step)
        acked = 0
        while await is_acknowledged(client.sync_share(share.id, share.secret, batch(acked))):
            acked += 1
    await server.rebirth()
    async with server.client() as client:
        found = await numbers(client, share.id)
        assert found in (list(range(acked)), list(range(acked + 1)))
        await client.sync_share(share.id, share.secret, batch(acked))
        assert await numbers(client, share.id) == [*found, acked]
    await all_is_well(server)


async def all_is_compacted(server: MortalServer, share_id: str) -> None:
    """Return once there is a snapshot, and nothing that it makes superfluous."""
    async with opened(server.store_url) as store:
        while True:
            keys = [info.key async for info in store.list(f"share/{share_id}/")]
            if any("/snapshot/" in key for key in keys) and len(keys) < 9:
                return
            await asyncio.sleep(0.02)


@each_step(DELETING, on_bucket=["tombstone written", "content half removed", "content removed"])
async def test_deleting(server: MortalServer, session: str, step: str) -> None:
    async with server.client() as client:
        share = await client.create_share(session)
        for number in range(9):
            await client.sync_share(share.id, share.secret, batch(number))
        await all_is_compacted(server, share.id)
        server.die_at(step)
        is_acked = await is_acknowledged(client.delete_share(share.id, share.secret))
        assert is_acked == (step == "tombstone unswept")
        await server.rebirth()
    async with server.client() as client:
        if step == "tombstone unwritten":
            assert await numbers(client, share.id) == list(range(9))
        # To repeat it is to finish it, as long as there is anything to be finished.
        is_repeated = await is_found(client.delete_share(share.id, share.secret))
        assert is_repeated == (step not in {"head marked", "tombstone unswept"})
        assert not await is_found(client.get_share(share.id))
        assert (await client.list_shares(query=session)).count == 0
        async with opened(server.store_url) as store:
            left = store.scan(f"share/{share.id}/")
            assert not [found.key async for found in left if b"what was said" in found.body]
        assert await client.create_share(session, batch(10)) == share
        assert await numbers(client, share.id) == [10]
    await all_is_well(server, tombstones=0 if is_repeated else 1)


@each_step(UPGRADING)
async def test_upgrading(server: MortalServer, session: str, step: str) -> None:
    share_id = session[-8:]
    async with opened(server.store_url) as store:
        await put_older(store, share_id, older_share(session), older_index(share_id, session))
    sync = [{"type": "part", "data": {"id": "prt_new"}}]
    async with server.client() as client:
        before = await client.get_share(share_id)
        server.die_at(step)
        assert not await is_acknowledged(client.sync_share(share_id, SECRET, sync))
    await server.rebirth()
    async with server.client() as client:
        assert await client.get_share(share_id) == before
        assert await client.sync_share(share_id, SECRET, sync) == before["metadata"]["syncCount"] + 1
        after = await client.get_share(share_id)
        assert [part["id"] for part in after["parts"]] == ["prt_1", "prt_new"]
        assert after["diffs"] == before["diffs"]
    await all_is_well(server)


def test_the_document_says_what_each_step_leaves_behind() -> None:
    _, _, section = ARCHITECTURE.read_text().partition("\n## Where a process may die\n")
    section, _, _ = section.partition("\n## ")
    rows = re.findall(r"^\| ([a-z ]+) \| has ", section, re.MULTILINE)
    assert rows == list(STEPS)
