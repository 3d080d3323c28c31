"""A server whose Redis is not there: it serves, says that it is not ready, and gets over it."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

import rpcshare
from support.redis_server import RedisServer
from support.running_server import RunningServer

pytestmark = pytest.mark.slow  # a server of its own


async def test_a_server_starts_without_redis_and_is_ready_once_it_is_there(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    location = f"--broadcast=redis://127.0.0.1:{redis.port}/0"
    with ExitStack() as stack:
        server = stack.enter_context(RunningServer(tmp_path / "data", location))
        async with (
            httpx.AsyncClient(base_url=server.url) as http,
            rpcshare.ShareClient(server.url, token=server.token) as client,
        ):
            assert (await http.get("/healthz")).status_code == 200
            refusal = await http.get("/readyz")
            assert (refusal.status_code, refusal.json()["error"]) == (503, "Broadcaster unavailable")
            share = await client.create_share("ses_no_redis_0001")
            async with client.subscribe(share.id) as events:
                await anext(events)
                await client.sync_share(share.id, share.secret, [])
                assert (await anext(events)).sync_count == 1
            stack.enter_context(redis)
            while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.02)
        log = server.log.read_text()
    assert log.count("Redis cannot be reached") == 1
