"""Who can publish on Redis, an attacker or a server on a copy of the store, changes nothing that is shown."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import rpcshare
from support.redis_server import RedisServer
from support.running_server import RPCSHARE, RunningServer

pytestmark = pytest.mark.rare

redis = pytest.importorskip("redis.asyncio", reason="redis is not installed")

SECRET = "--shared-secret=12345678-1234-5678-9234-567812345678"
SESSION = "ses_trust_0001"


def part(part_id: str) -> list[dict[str, Any]]:
    return [{"type": "part", "data": {"id": part_id, "messageID": "m", "type": "text", "text": part_id}}]


@asynccontextmanager
async def clients(*servers: RunningServer) -> AsyncIterator[list[rpcshare.ShareClient]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(rpcshare.ShareClient(server.url, token=server.token))
            for server in servers
        ]


async def parts(client: rpcshare.ShareClient, share_id: str) -> list[str]:
    return [each["id"] for each in (await client.get_share(share_id))["parts"]]


def doctor(store: Path) -> str:
    command = [RPCSHARE, "doctor", "--store", f"sqlite:///{store}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def migrated(store: Path, copy: Path) -> None:
    subprocess.run(
        [RPCSHARE, "migrate", "--from", f"sqlite:///{store}", "--to", f"sqlite:///{copy}"], check=True
    )


def restored(store: Path, copy: Path) -> None:
    backup = copy.with_suffix(".backup")
    subprocess.run([RPCSHARE, "export", str(backup), "--store", f"sqlite:///{store}"], check=True)
    subprocess.run([RPCSHARE, "restore", str(backup), "--store", f"sqlite:///{copy}"], check=True)


def copied(store: Path, copy: Path) -> None:
    """Copy the files: the copy has the same identity, so its messages are authentic."""
    for suffix in ("", "-wal"):
        if store.with_name(store.name + suffix).exists():
            shutil.copy(store.with_name(store.name + suffix), copy.with_name(copy.name + suffix))


@pytest.mark.parametrize("copies", [migrated, restored, copied])
async def test_a_server_on_a_copy_of_the_store_shows_and_harms_nothing(
    tmp_path: Path, copies: Callable[[Path, Path], None]
) -> None:
    production, staging = tmp_path / "production.sqlite3", tmp_path / "staging.sqlite3"
    with RedisServer(tmp_path) as bus:
        common = [SECRET, f"--broadcast=redis://127.0.0.1:{bus.port}/0"]
        with RunningServer(tmp_path / "a", f"--store=sqlite:///{production}", *common) as a:
            async with clients(a) as (client,):
                share = await client.create_share(SESSION, part("first"))
                await asyncio.to_thread(copies, production, staging)
                with RunningServer(tmp_path / "b", f"--store=sqlite:///{staging}", *common) as b:
                    async with clients(b) as (other,), client.subscribe(share.id) as events:
                        await anext(events)
                        await other.sync_share(share.id, share.secret, part("STAGING"))
                        assert await client.sync_share(share.id, share.secret, part("real")) == 2
                        event = await asyncio.wait_for(anext(events), 60)
                        assert [item["data"]["id"] for item in event.data] == ["real"]
                assert await parts(client, share.id) == ["first", "real"]
            a.restart()
            async with clients(a) as (client,):
                assert await parts(client, share.id) == ["first", "real"]
    assert "damaged" not in doctor(production)


def again(message: bytes) -> bytes:
    return message


def changed(message: bytes) -> bytes:
    return message[:40] + bytes([message[40] ^ 1]) + message[41:]


def large(message: bytes) -> bytes:
    return message * 1000


def plain(_message: bytes) -> bytes:
    return b"\x84\xa8share_id\xa800000001\xaageneration\xa0\xa5entry\x05\xa4body\xc4\x02{}"


@pytest.mark.parametrize("forge", [again, changed, large, plain])
async def test_what_is_forged_on_redis_shows_and_harms_nothing(
    tmp_path: Path, forge: Callable[[bytes], bytes]
) -> None:
    store = tmp_path / "s.sqlite3"
    with RedisServer(tmp_path) as server:
        common = [
            f"--store=sqlite:///{store}", SECRET, f"--broadcast=redis://127.0.0.1:{server.port}/0"
        ]  # fmt: skip
        with RunningServer(tmp_path / "a", *common) as a, RunningServer(tmp_path / "b", *common) as b:
            async with clients(a, b) as (first, second), redis.Redis(port=server.port) as bus:
                heard = bus.pubsub()
                await heard.psubscribe("*")
                share = await first.create_share(SESSION, part("first"))
                async with first.subscribe(share.id) as events, second.subscribe(share.id) as others:
                    await anext(events)
                    await anext(others)
                    await first.sync_share(share.id, share.secret, part("SECRET-PROMPT"))
                    await anext(events)
                    await asyncio.wait_for(anext(others), 60)
                    async with asyncio.timeout(60):
                        while (message := await heard.get_message(timeout=5)) is None or (
                            message["type"] != "pmessage"
                        ):
                            pass
                    assert b"SECRET-PROMPT" not in message["data"]
                    assert share.id.encode() not in message["channel"]
                    for _ in range(3):
                        await bus.publish(message["channel"], forge(message["data"]))
                    assert await second.sync_share(share.id, share.secret, part("real")) == 3
                    for stream in (events, others):
                        event = await asyncio.wait_for(anext(stream), 60)
                        assert [item["data"]["id"] for item in event.data] == ["real"]
                expected = ["first", "SECRET-PROMPT", "real"]
                assert await parts(first, share.id) == await parts(second, share.id) == expected
                await heard.aclose()
    assert "damaged" not in doctor(store)
