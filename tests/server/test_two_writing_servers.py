"""Two servers write one share at once, one of them for both, and it is killed or falls asleep meanwhile.

Whoever of both is the one that writes: what was acknowledged is in the log once, at the place that was told.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

import rpcshare
from rpcshare.shares import objects
from rpcshare.storage import open_store
from support.redis_server import RedisServer
from support.running_server import RunningServer
from support.s3_server import ENDPOINT_VARIABLE, S3Server, moto_server, real_server

pytestmark = pytest.mark.slow  # real servers, several of them at a time

SECRET = "--shared-secret=12345678-1234-5678-9234-567812345678"
CALLERS = 4


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with real_server() if os.environ.get(ENDPOINT_VARIABLE) else moto_server() as s3:
        yield s3


@pytest.fixture(params=["one file", "one bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "one file":
        return f"sqlite:///{tmp_path / 'shared.sqlite3'}"
    s3: S3Server = request.getfixturevalue("s3")
    location = s3.location()  # another each time: all tests call their share the same
    return f"s3://{location.bucket}/{location.prefix}?endpoint_url={location.endpoint_url}&region=us-east-1"


@asynccontextmanager
async def two_servers(tmp_path: Path, store: str, *of_redis: str) -> AsyncIterator[list[RunningServer]]:
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path, *of_redis))
        options = [f"--store={store}", SECRET, f"--broadcast=redis://127.0.0.1:{redis.port}/0"]
        yield [stack.enter_context(RunningServer(tmp_path / name, *options)) for name in ("one", "other")]


class Callers:
    """Some at one server, who sync all the time, and know what was acknowledged."""

    def __init__(self, server: RunningServer, name: str, share: rpcshare.ShareCredentials) -> None:
        self.server, self.name, self.share = server, name, share
        self.acknowledged: dict[str, int] = {}
        self.is_over = False

    async def run(self) -> None:
        await asyncio.gather(*map(self._one, range(CALLERS)))

    async def _one(self, caller: int) -> None:
        async with rpcshare.ShareClient(self.server.url, token=self.server.token) as client:
            for number in count():
                if self.is_over:
                    return
                name = f"{self.name}.{caller}.{number:06}"
                item = {"type": "part", "data": {"id": name, "messageID": "m", "text": "x"}}
                try:
                    synced = await client.sync_share(self.share.id, self.share.secret, [item])
                except rpcshare.SessionClosedError:  # the server is killed
                    return
                except rpcshare.RpcError:  # it may be in the log, once
                    continue
                self.acknowledged[name] = synced

    async def until_more(self, more: int) -> None:
        wanted = len(self.acknowledged) + more
        async with asyncio.timeout(30):
            while len(self.acknowledged) < wanted:  # noqa: ASYNC110 -- of what nobody tells
                await asyncio.sleep(0.01)


async def log_of(store_url: str, share_id: str) -> tuple[list[str], int]:
    """Return the names of all syncs in the log in order, and how many of them another server might write."""
    store = await open_store(store_url)
    names: list[str] = []
    labelled = 0
    try:
        async for found in store.scan(f"share/{share_id}/"):
            if "/log/" in found.key:
                for sync in objects.decode_entry(found.body).syncs(()):
                    labelled += bool(sync.label)
                    names += [key.decode().strip('"') for item in sync.items for key, _ in item.values]
    finally:
        await store.close()
    return names, labelled


async def check(store_url: str, share_id: str, callers: list[Callers]) -> None:
    names, labelled = await log_of(store_url, share_id)
    assert labelled > 0  # else none has written for the other
    places = {name: place for place, name in enumerate(names, 1)}
    assert len(places) == len(names)
    for each in callers:
        assert {name: places.get(name) for name in each.acknowledged} == each.acknowledged
        for caller in range(CALLERS):
            mine = [name for name in names if name.startswith(f"{each.name}.{caller}.")]
            assert mine == sorted(mine)


@asynccontextmanager
async def both_write(tmp_path: Path, store: str, *of_redis: str) -> AsyncIterator[list[Callers]]:
    """Have callers at both servers; when the context is left, look what has become of their syncs."""
    async with two_servers(tmp_path, store, *of_redis) as servers:
        async with rpcshare.ShareClient(servers[0].url, token=servers[0].token) as client:
            share = await client.create_share("ses_two_writers_0001")
        callers = [Callers(server, name, share) for server, name in zip(servers, "ab", strict=True)]
        runs = [asyncio.create_task(each.run()) for each in callers]
        for each in callers:
            await each.until_more(50)
        yield callers
        for each in callers:
            each.is_over = True
        async with asyncio.timeout(40):
            await asyncio.gather(*runs)
        await check(store, share.id, callers)


@pytest.mark.parametrize("which", [0, 1])
async def test_one_is_killed_and_the_other_goes_on(store: str, tmp_path: Path, which: int) -> None:
    async with both_write(tmp_path, store) as callers:
        callers[which].server.kill()
        await callers[1 - which].until_more(50)


@pytest.mark.parametrize("which", [0, 1])
async def test_one_falls_asleep_and_wakes_up(store: str, tmp_path: Path, which: int) -> None:
    async with both_write(tmp_path, store) as callers:
        for _ in range(3):
            callers[which].server.process.send_signal(signal.SIGSTOP)
            try:
                # The lock of a store in one file may be the sleeper's.
                await asyncio.sleep(1.0)
            finally:
                callers[which].server.process.send_signal(signal.SIGCONT)
            for each in callers:
                await each.until_more(20)


async def test_redis_hangs_up_on_one_that_does_not_keep_up(tmp_path: Path) -> None:
    """It does so with subscribers for whom too much waits, all of which is then lost."""
    limit = ["--client-output-buffer-limit", "pubsub", "16kb", "8kb", "1"]
    async with both_write(tmp_path, f"sqlite:///{tmp_path / 'shared.sqlite3'}", *limit) as callers:
        for sleeper in callers:
            sleeper.server.process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(0.7)
            finally:
                sleeper.server.process.send_signal(signal.SIGCONT)
            for each in callers:
                await each.until_more(20)
