"""Real servers after trouble from outside: Redis asks for a password, a restore is killed, a clock steps."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio as redis

import rpcshare
from rpcshare.storage import ObjectStore, open_store
from support.redis_server import RedisServer
from support.running_server import RPCSHARE, RunningServer, bare_environment
from support.s3_server import ENDPOINT_VARIABLE, S3Server, moto_server, real_server
from support.token_issuer import AUDIENCE, ISSUER, claims, make_key, pem, token

pytestmark = [pytest.mark.slow, pytest.mark.rare, pytest.mark.timeout(300)]

LIBFAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
"""Debian's faketime has it."""

ENDED = (rpcshare.ShareError, rpcshare.ConnectFailedError, rpcshare.RpcError)
"""What a caller gets whose credential has ended: with its answer, or with the session."""


def part(part_id: str) -> list[dict[str, object]]:
    return [{"type": "part", "data": {"id": part_id, "messageID": "m", "type": "text", "text": part_id}}]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A real server where there is one, else moto's."""
    with real_server() if os.environ.get(ENDPOINT_VARIABLE) else moto_server() as server:
        yield server


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return what makes places in a bucket that nothing has been written to."""

    def place() -> str:
        at = request.getfixturevalue("s3").location()
        return f"s3://{at.bucket}/{at.prefix}?endpoint_url={at.endpoint_url}&region=us-east-1"

    return place


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
                await _answers(http, "/readyz", 200)


def started(*words: object) -> subprocess.Popen[bytes]:
    """Start a command, without waiting for its end."""
    return subprocess.Popen(
        [RPCSHARE, *map(str, words)],
        env=bare_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def kill_in_the_middle_of_a_share(process: subprocess.Popen[bytes], store: ObjectStore) -> None:
    """Kill a command that copies shares when the store has content of a share that has no head yet."""

    async def headless() -> set[str]:
        keys = [info.key.split("/") async for info in store.list("share/")]
        return {key[1] for key in keys} - {key[1] for key in keys if key[-1] == "head"}

    before = await headless()
    while process.poll() is None:
        if await headless() - before:
            break
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("command", "target", "shares"),
    [("restore", "file", 60), ("restore", "bucket", 15), ("migrate", "file", 60), ("migrate", "bucket", 15)],
)
def test_a_copy_that_was_killed_and_is_made_again_lists_everything(
    tmp_path: Path, bucket: Callable[[], str], command: str, target: str, shares: int
) -> None:
    old = f"sqlite:///{tmp_path}/old.sqlite3"
    with RunningServer(tmp_path / "a", f"--store={old}") as server:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.token}"}) as client:
            for number in range(shares):
                data = [each for index in range(20) for each in part(f"p{index}")]
                body = {"sessionID": f"ses_kill_{number:04}", "data": data}
                client.post("/api/share", json=body).raise_for_status()
        server.stop()
    new = bucket() if target == "bucket" else f"sqlite:///{tmp_path}/new.sqlite3"
    backup = tmp_path / "backup"
    if command == "restore":
        assert started("export", backup, "--store", old).wait() == 0

    def copy(store: str) -> subprocess.Popen[bytes]:
        if command == "restore":
            return started("restore", backup, "--store", store)
        return started("migrate", "--from", old, "--to", store)

    async def kill_some() -> None:
        store = await open_store(new)
        try:
            for _ in range(3):
                await kill_in_the_middle_of_a_share(copy(new), store)
        finally:
            await store.close()

    asyncio.run(kill_some())
    assert copy(new).wait() == 0
    # What the killed ones had written of a share that was made anew is left over.
    started("doctor", "--fix", "--grace=0", "--store", new).wait()
    assert started("doctor", "--store", new).wait() == 0
    with RunningServer(tmp_path / "s", f"--store={new}") as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        with httpx.Client(base_url=server.url, headers=headers) as client:
            page: dict[str, Any] = {"indexing": True}
            while page.get("indexing"):
                page = client.get("/api/sessions", params={"limit": 100}, timeout=30).json()
            assert len({row["id"] for row in page["sessions"]}) == shares
            for row in page["sessions"]:
                assert len(client.get(f"/api/share/{row['id']}").json()["parts"]) == 20


async def _answers(http: httpx.AsyncClient, path: str, status: int) -> None:
    """Return as soon as ``path`` is answered with ``status``."""
    async with asyncio.timeout(60):
        while (await http.get(path)).status_code != status:  # noqa: ASYNC110 -- it tells nobody
            await asyncio.sleep(0.1)


async def _ask_again_and_again(client: rpcshare.ShareClient) -> None:
    while True:
        await client.whoami()
        await asyncio.sleep(0.5)


async def _read_all(events: rpcshare.EventStream) -> None:
    async for _ in events:
        pass
    await asyncio.sleep(60)  # a stream that ends without an error is none that was refused


class Clock:
    """How far the wall clock of servers with its environment is from the real one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.step("+0")
        self.environment = {
            "LD_PRELOAD": str(LIBFAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # With it, a wait of 5 ms for Python's lock ends at once, and two busy threads take minutes.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def step(self, offset: str) -> None:
        """Set it to ``offset`` from the real time, such as "+2d"."""
        self._path.write_text(offset)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    if not LIBFAKETIME:
        pytest.skip("needs libfaketime")
    return Clock(tmp_path / "clock")


@pytest.mark.parametrize("step", ["+2d", "+400d"])
async def test_a_step_of_the_clock_ends_expired_sessions_and_turns_no_time_back(
    tmp_path: Path, clock: Clock, step: str
) -> None:
    key = make_key("EdDSA")
    (tmp_path / "key.pem").write_bytes(pem(key))
    options = [f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}", f"--jwt-key={tmp_path}/key.pem"]
    with RunningServer(tmp_path / "s", *options, env=clock.environment) as server:
        short = token(key, "EdDSA", claims(exp=int(time.time()) + 60))
        async with (
            rpcshare.ShareClient(server.url, token=short) as guest,
            rpcshare.ShareClient(server.url, token=server.token) as admin,
        ):
            share = await guest.create_share("ses_clock_0001", part("p"), visibility="private")
            events = guest.subscribe(share.id)
            async with events:
                await anext(events)
                clock.step(step)
                await admin.sync_share(share.id, share.secret, part("q"))
                with pytest.raises(ENDED):
                    await asyncio.wait_for(_read_all(events), 30)
                with pytest.raises(ENDED):
                    await guest.whoami()
            before = await admin.get_share_metadata(share.id)
            clock.step("-2d")
            await admin.sync_share(share.id, share.secret, part("z"))
            after = await admin.get_share_metadata(share.id)
            assert after.last_updated >= before.last_updated >= after.created_at


async def test_a_key_that_has_ended_by_any_clock_ends_what_it_opened(tmp_path: Path, clock: Clock) -> None:
    with RunningServer(tmp_path / "s", env=clock.environment) as server:
        command = [RPCSHARE, "keys", "create", "guest", "--expires=1d", f"--data-dir={tmp_path}/s"]
        made = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        async with rpcshare.ShareClient(server.url, token=made.stdout.split()[0]) as guest:
            share = await guest.create_share("ses_clock_0002", part("p"), visibility="private")
            events = guest.subscribe(share.id)
            async with events:
                await anext(events)
                clock.step("+2d")
                with pytest.raises(ENDED):
                    await asyncio.wait_for(_read_all(events), 30)


async def test_a_clock_that_is_turned_back_makes_no_token_good_again(tmp_path: Path, clock: Clock) -> None:
    key = make_key("EdDSA")
    (tmp_path / "key.pem").write_bytes(pem(key))
    options = [f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}", f"--jwt-key={tmp_path}/key.pem"]
    with RunningServer(tmp_path / "s", *options, env=clock.environment) as server:
        short = token(key, "EdDSA", claims(exp=int(time.time()) + 10))
        async with rpcshare.ShareClient(server.url, token=short) as guest:
            await guest.whoami()
            clock.step("-2d")
            with pytest.raises(ENDED):
                await asyncio.wait_for(_ask_again_and_again(guest), 60)


async def test_a_share_that_is_due_only_by_a_step_of_the_clock_is_kept(tmp_path: Path, clock: Clock) -> None:
    with RunningServer(tmp_path / "s", env=clock.environment) as server:
        async with (
            rpcshare.ShareClient(server.url, token=server.token) as client,
            httpx.AsyncClient(base_url=server.url) as http,
        ):
            share = await client.create_share("ses_clock_0003", part("p"), expires_in="1d")
            clock.step("+2d")
            await _answers(http, f"/api/share/{share.id}", 410)
            await asyncio.sleep(8)  # what is due is looked for every 5 s
            clock.step("+0")
            await _answers(http, f"/api/share/{share.id}", 200)
            assert [each["id"] for each in (await client.get_share(share.id))["parts"]] == ["p"]
