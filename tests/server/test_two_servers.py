"""Two servers on one store: both write one share at once, and nothing is lost or in two orders."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rpcshare
from support.redis_server import RedisServer
from support.running_server import RunningServer
from support.s3_server import ENDPOINT_VARIABLE, moto_server, real_server

pytestmark = pytest.mark.slow  # real servers, several of them at a time

SYNCS = 500
SHARED_SECRET = "--shared-secret=12345678-1234-5678-9234-567812345678"


@pytest.fixture(scope="module")
def bucket_url() -> Iterator[str]:
    """A place in a bucket: a real server's where there is one, else moto's."""
    with real_server() if os.environ.get(ENDPOINT_VARIABLE) else moto_server() as s3:
        location = s3.location()
        yield f"s3://{location.bucket}/{location.prefix}?endpoint_url={location.endpoint_url}&region=us-east-1"


@pytest.fixture(params=["one file", "one bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "one file":
        return f"sqlite:///{tmp_path / 'shared.sqlite3'}"
    return str(request.getfixturevalue("bucket_url"))


async def write(url: str, token: str, share: rpcshare.ShareCredentials, writer: str) -> None:
    async with rpcshare.ShareClient(url, token=token) as client:
        parts = [{"type": "part", "data": {"id": f"prt_{writer}_{n}"}} for n in range(SYNCS)]
        syncs = [client.sync_share(share.id, share.secret, [part]) for part in parts]
        await asyncio.gather(*syncs)


async def watch(url: str, token: str, share: rpcshare.ShareCredentials, total: int) -> list[str]:
    seen: list[str] = []
    async with (
        rpcshare.ShareClient(url, token=token) as client,
        client.subscribe(share.id) as events,
    ):
        async for event in events:
            items: list[dict[str, Any]] = [item["data"] for item in event.data if item["type"] == "part"]
            if event.type == "snapshot":
                seen.clear()
            seen += [item["id"] for item in items]
            if event.sync_count == total:
                break
    return seen


@pytest.mark.slow
async def test_both_write_one_share_at_once(store: str, tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as redis,
        RunningServer(
            tmp_path / "one",
            f"--store={store}",
            SHARED_SECRET,
            f"--broadcast=redis://127.0.0.1:{redis.port}/0",
        ) as one,
        RunningServer(
            tmp_path / "other",
            f"--store={store}",
            SHARED_SECRET,
            f"--broadcast=redis://127.0.0.1:{redis.port}/0",
        ) as other,
    ):
        async with rpcshare.ShareClient(one.url, token=one.token) as client:
            share = await client.create_share("ses_two_servers_0001")
        watchers = [
            asyncio.create_task(watch(server.url, server.token, share, 2 * SYNCS)) for server in (one, other)
        ]
        await asyncio.gather(
            write(one.url, one.token, share, "one"), write(other.url, other.token, share, "other")
        )
        async with (
            rpcshare.ShareClient(one.url, token=one.token) as here,
            rpcshare.ShareClient(other.url, token=other.token) as there,
        ):
            session = await here.get_share(share.id)
            assert await there.get_share(share.id) == session
        order = [part["id"] for part in session["parts"]]
        assert session["metadata"]["syncCount"] == 2 * SYNCS
        assert sorted(order) == sorted(f"prt_{w}_{n}" for w in ("one", "other") for n in range(SYNCS))
        # Every part is new, so whoever watched saw them all once, in the order in which they were kept.
        for seen in await asyncio.gather(*watchers):
            assert seen == order
