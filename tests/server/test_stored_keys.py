"""API keys at a running server: shown in every way, managed over RPC, ended everywhere."""

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.typing import Subprotocol

import rpcshare
from rpcshare.rpc import RpcError
from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow  # real servers, several of them at a time

# In seconds. A revocation takes 5 at most to be heard of everywhere; a machine may be busy.
PATIENCE = 10.0


def run(*arguments: str) -> str:
    """Run a command in a process of its own, and return what it printed."""
    process = subprocess.run(
        [RPCSHARE, *arguments], env=bare_environment(), capture_output=True, text=True, check=True
    )
    return process.stdout.strip()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "data"


@pytest.fixture(scope="module")
def keyed(data_dir: Path) -> Iterator[RunningServer]:
    """A server that logs all that it ever logs."""
    with RunningServer(data_dir, "--log-level=debug") as server:
        yield server


@pytest.fixture(scope="module")
def key(keyed: RunningServer) -> str:
    """Made by the command line while the server runs on the same file."""
    return run("keys", "create", "ci", f"--data-dir={keyed.data_dir}")


def subprotocols(token: str) -> list[Subprotocol]:
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return [Subprotocol("rpcshare.json"), Subprotocol(f"bearer.{encoded}")]


async def whoami(url: str, **options: Any) -> Any:
    async with websockets.connect(url.replace("http", "ws", 1), proxy=None, **options) as socket:
        await socket.send('["push",["pipeline",0,["whoami"],[]]]')
        await socket.send('["pull",1]')
        return json.loads(await socket.recv())[2]


WAYS = {
    "bearer": lambda url, key: whoami(f"{url}/rpc", additional_headers={"Authorization": f"Bearer {key}"}),
    "api key": lambda url, key: whoami(f"{url}/rpc", additional_headers={"Authorization": f"ApiKey {key}"}),
    "share key": lambda url, key: whoami(f"{url}/rpc", additional_headers={"x-opencode-share-key": key}),
    "path": lambda url, key: whoami(f"{url}/k/{key}/rpc"),
    "subprotocol": lambda url, key: whoami(f"{url}/rpc", subprotocols=subprotocols(key)),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_may_be_shown_in_every_way(keyed: RunningServer, key: str, way: str) -> None:
    assert await WAYS[way](keyed.url, key) == {"subject": "ci", "scopes": [["create"]]}


async def test_a_key_may_be_shown_in_band(keyed: RunningServer, key: str) -> None:
    async with rpcshare.connect(keyed.url, token=keyed.token) as api:
        assert await api.authenticate(key).whoami() == {"subject": "ci", "scopes": ["create"]}


@pytest.mark.parametrize("base", ["/k/{key}", ""])
def test_a_key_makes_shares_over_http(keyed: RunningServer, key: str, base: str) -> None:
    headers = {} if base else {"Authorization": f"ApiKey {key}"}
    url = keyed.url + base.format(key=key)
    body = {"sessionID": f"ses_of_key_{len(base):08d}"}
    made = httpx.post(f"{url}/api/share", json=body, headers=headers)
    assert made.status_code == 200
    listed = httpx.get(f"{url}/api/my-sessions", headers=headers).json()
    assert made.json()["id"] in [session["id"] for session in listed["sessions"]]


def test_a_key_may_do_no_more_than_its_scopes_allow(keyed: RunningServer) -> None:
    reader = run("keys", "create", "reader", "--scope=read", f"--data-dir={keyed.data_dir}")
    headers = {"Authorization": f"ApiKey {reader}"}
    answer = httpx.post(f"{keyed.url}/api/share", json={"sessionID": "ses_of_reader"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


# Over RPC


async def test_an_admin_manages_keys_over_rpc(keyed: RunningServer) -> None:
    async with rpcshare.connect(keyed.url, token=keyed.token) as api:
        keys = api.keys()
        made = await keys.create("robot", {"scopes": ["read"], "expiresIn": "30d"})
        assert set(made) == {"id", "name", "key", "scopes", "createdAt", "expiresAt"}
        assert made["expiresAt"] - made["createdAt"] == 30 * 86_400_000
        assert abs(made["createdAt"] - time.time() * 1000) < 60_000
        assert await api.authenticate(made["key"]).whoami() == {"subject": "robot", "scopes": ["read"]}
        rotated = await keys.rotate(made["id"])
        assert (rotated["name"], rotated["scopes"]) == ("robot", ["read"])
        assert await api.authenticate(rotated["key"]).whoami() == {"subject": "robot", "scopes": ["read"]}
        ended = await keys.revoke(rotated["id"])
        assert ended["revokedAt"] >= ended["createdAt"]
        listed = {key["id"]: key for key in await keys.list()}
        assert listed[made["id"]]["rotatedAt"] is not None
        assert listed[rotated["id"]] == ended
        assert not any("key" in key or "hash" in key for key in listed.values())


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda keys: keys.create(""), "name: "),
        (lambda keys: keys.create(7), "create: name: "),
        (lambda keys: keys.create("x", {"scopes": ["write"]}), "scopes: "),
        (lambda keys: keys.create("x", {"scopes": "read"}), "create: options: "),
        (lambda keys: keys.create("x", {"expiresIn": "soon"}), "expiresIn: "),
        (lambda keys: keys.create("x", {"expiresIn": 0}), "expiresIn: "),
        (lambda keys: keys.create("x", {"colour": "red"}), "create: options: "),
        (lambda keys: keys.rotate("0" * 12), "id: there is no key"),
        (lambda keys: keys.revoke("../head"), "id: there is no key"),
    ],
)
async def test_an_argument_that_makes_no_sense_is_named(keyed: RunningServer, call: Any, named: str) -> None:
    async with rpcshare.connect(keyed.url, token=keyed.token) as api:
        with pytest.raises(RpcError) as caught:
            await call(api.keys())
    assert (caught.value.code, caught.value.message[: len(named)]) == ("INVALID_ARGUMENT", named)


async def test_who_is_no_admin_manages_no_keys(keyed: RunningServer, key: str) -> None:
    async with rpcshare.connect(keyed.url, token=key) as api:
        with pytest.raises(RpcError, match=r"^Forbidden: only an admin") as caught:
            await api.keys()
    assert caught.value.code == "FORBIDDEN"


async def test_an_anonymous_caller_manages_no_keys(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", "--anonymous-create") as server:
        async with rpcshare.connect(server.url) as api:
            with pytest.raises(RpcError, match=r"^Unauthorized") as caught:
                await api.keys()
    assert caught.value.code == "UNAUTHORIZED"


async def list_for_ever(keys: Any) -> None:
    while True:
        await keys.list()


async def test_the_right_to_manage_keys_ends_with_the_credential_that_gave_it(keyed: RunningServer) -> None:
    async with rpcshare.connect(keyed.url, token=keyed.token) as api:
        deputy = await api.keys().create("deputy", {"scopes": ["admin"]})
        keys = await api.authenticate(deputy["key"]).keys()
        assert await keys.list()
        await api.keys().revoke(deputy["id"])
        with pytest.raises(RpcError, match=r"^Unauthorized") as caught:
            await asyncio.wait_for(list_for_ever(keys), PATIENCE)
    assert caught.value.code == "UNAUTHORIZED"


# The end of a key


async def closed_with(socket: websockets.ClientConnection) -> int | None:
    with pytest.raises(websockets.ConnectionClosed):
        async with asyncio.timeout(PATIENCE):
            await socket.recv()
    return socket.close_code


async def opened(server: RunningServer, key: str) -> websockets.ClientConnection:
    url = server.url.replace("http", "ws", 1)
    return await websockets.connect(f"{url}/k/{key}/rpc", proxy=None)


async def refusal(server: RunningServer, key: str) -> str:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{server.url}/api/my-sessions", headers={"x-opencode-share-key": key})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    return str(answer.json()["error"])


async def test_a_revocation_on_the_command_line_ends_open_connections_on_every_server(
    keyed: RunningServer, tmp_path: Path
) -> None:
    store = f"--store=sqlite:///{keyed.data_dir / 'store.sqlite3'}"
    key = run("keys", "create", "doomed", store)
    with RunningServer(tmp_path / "other", store) as other:
        sockets = [await opened(server, key) for server in (keyed, other)]
        await asyncio.to_thread(run, "keys", "revoke", key.split("_")[1], store)
        assert await asyncio.gather(*map(closed_with, sockets)) == [1008, 1008]
        for server in (keyed, other):
            assert await refusal(server, key) == "Unauthorized: the API key has been revoked"


async def test_a_key_that_expires_ends_its_connections(keyed: RunningServer) -> None:
    key = run("keys", "create", "brief", "--expires=2s", f"--data-dir={keyed.data_dir}")
    assert await closed_with(await opened(keyed, key)) == 1008
    assert await refusal(keyed, key) == "Unauthorized: the API key has expired"


async def test_the_connections_of_other_keys_stay_open(keyed: RunningServer, key: str) -> None:
    doomed = run("keys", "create", "ci", f"--data-dir={keyed.data_dir}")
    staying, ending = await opened(keyed, key), await opened(keyed, doomed)
    await asyncio.to_thread(run, "keys", "revoke", doomed.split("_")[1], f"--data-dir={keyed.data_dir}")
    assert await closed_with(ending) == 1008
    await staying.send('["push",["pipeline",0,["whoami"],[]]]')
    await staying.send('["pull",1]')
    assert json.loads(await staying.recv())[0] == "resolve"
    await staying.close()


# What is never written


def test_neither_the_store_nor_the_log_has_a_key_in_it(keyed: RunningServer) -> None:
    key = run("keys", "create", "hidden", f"--data-dir={keyed.data_dir}")
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    for shown in (key, wrong):
        for path in ("/api/my-sessions", f"/k/{shown}/api/my-sessions", f"/k/{shown}/nowhere"):
            httpx.get(keyed.url + path, headers={"Authorization": f"Bearer {shown}"})
    written = keyed.log.read_bytes()
    written += b"".join(path.read_bytes() for path in keyed.data_dir.glob("store.sqlite3*"))
    assert key.split("_")[1].encode() in written  # so the right files were read
    assert not any(text.rpartition("_")[2].encode() in written for text in (key, wrong))
