"""Real servers after trouble from outside: Redis asks for a password, a restore is killed, a clock steps."""

import asyncio
import contextlib
import random
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import redis.asyncio as redis

import rpcshare
from auth.issuer import AUDIENCE, ISSUER, claims, make_key, pem, token
from broadcast.redis_server import RedisServer
from running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LIBFAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
"""Debian's faketime has it."""

SHARES = 60

ENDED = (rpcshare.ShareError, rpcshare.ConnectFailedError, rpcshare.RpcError)
"""What a caller gets whose credential has ended: with its answer, or with the session."""


def part(part_id: str) -> list[dict[str, object]]:
    return [{"type": "part", "data": {"id": part_id, "messageID": "m", "type": "text", "text": part_id}}]


@pytest.mark.parametrize("command", ["KILL TYPE pubsub", "KILL TYPE normal", "PAUSE 1500"])
async def test_a_server_hears_of_others_again_after_redis_refused_it(tmp_path: Path, command: str) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer(tmp_path))
        options = (
            f"--store=sqlite:///{tmp_path}/store.sqlite3",
            f"--broadcast=redis://127.0.0.1:{server.port}",
            "--shared-secret=12345678-1234-5678-9234-567812345678",
        )
        one, other = (stack.enter_context(RunningServer(tmp_path / name, *options)) for name in "ab")
        async with (
            redis.Redis(port=server.port) as bus,
            httpx.AsyncClient(base_url=one.url) as http,
            rpcshare.ShareClient(one.url, token=one.token) as reader,
            rpcshare.ShareClient(other.url, token=other.token) as writer,
        ):
            share = await reader.create_share("ses_deaf_0001")
            async with reader.subscribe(share.id) as events, asyncio.timeout(60):
                await anext(events)
                await bus.config_set("requirepass", "x")
                await bus.execute_command("CLIENT", *command.split())
                await asyncio.sleep(1)
                await bus.config_set("requirepass", "")
                await writer.sync_share(share.id, share.secret, part("p1"))
                while "p1" not in str((await anext(events)).data):
                    pass
                while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110 -- it tells nobody
                    await asyncio.sleep(0.1)


def restore(backup: Path, store: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [RPCSHARE, "restore", str(backup), "--store", store],
        env=bare_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_restore_that_was_killed_and_is_run_again_lists_everything(tmp_path: Path) -> None:
    old, rng = f"sqlite:///{tmp_path}/old.sqlite3", random.Random(4)
    with RunningServer(tmp_path / "a", f"--store={old}") as server:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.token}"}) as client:
            for number in range(SHARES):
                data = [each for index in range(20) for each in part(f"p{index}")]
                body = {"sessionID": f"ses_kill_{number:04}", "data": data}
                client.post("/api/share", json=body).raise_for_status()
        server.stop()
    backup, new = tmp_path / "backup", f"sqlite:///{tmp_path}/new.sqlite3"
    subprocess.run([RPCSHARE, "export", backup, "--store", old], check=True, env=bare_environment())
    began = time.monotonic()
    assert restore(backup, f"sqlite:///{tmp_path}/whole.sqlite3").wait() == 0
    took = time.monotonic() - began
    for _ in range(4):
        process = restore(backup, new)
        try:
            process.wait(rng.uniform(took / 4, took))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert restore(backup, new).wait() == 0
    with RunningServer(tmp_path / "s", f"--store={new}") as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        page = httpx.get(f"{server.url}/api/sessions", params={"limit": 100}, headers=headers).json()
        assert len({row["id"] for row in page["sessions"]}) == SHARES
        for row in page["sessions"]:
            shown = httpx.get(f"{server.url}/api/share/{row['id']}", headers=headers).json()
            assert len(shown["parts"]) == 20


async def _read_all(events: rpcshare.EventStream) -> None:
    async for _ in events:
        pass
    await asyncio.sleep(60)  # a stream that ends without an error is none that was refused


@pytest.mark.skipif(not LIBFAKETIME, reason="needs libfaketime")
@pytest.mark.parametrize("step", ["+2d", "+400d"])
async def test_a_step_of_the_clock_ends_expired_sessions_and_turns_no_time_back(
    tmp_path: Path, step: str
) -> None:
    key, clock = make_key("EdDSA"), tmp_path / "clock"
    clock.write_text("+0")
    (tmp_path / "key.pem").write_bytes(pem(key))
    environment = {
        "LD_PRELOAD": str(LIBFAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    options = [f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}", f"--jwt-key={tmp_path}/key.pem"]
    with RunningServer(tmp_path / "s", *options, env=environment) as server:
        short = token(key, "EdDSA", claims(exp=int(time.time()) + 60))
        async with (
            rpcshare.ShareClient(server.url, token=short) as guest,
            rpcshare.ShareClient(server.url, token=server.token) as admin,
        ):
            share = await guest.create_share("ses_clock_0001", part("p"), visibility="private")
            events = guest.subscribe(share.id)
            async with events:
                await anext(events)
                clock.write_text(step)
                await admin.sync_share(share.id, share.secret, part("q"))
                with pytest.raises(ENDED):
                    await asyncio.wait_for(_read_all(events), 30)
                with pytest.raises(ENDED):
                    await guest.whoami()
            before = await admin.get_share_metadata(share.id)
            clock.write_text("-2d")
            await admin.sync_share(share.id, share.secret, part("z"))
            after = await admin.get_share_metadata(share.id)
            assert after.last_updated >= before.last_updated >= after.created_at
