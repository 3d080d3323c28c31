"""Signed tokens that ``rpcshare token revoke`` ends at a running server, with the connections they opened."""

import asyncio
import json
import subprocess
from collections.abc import Iterator

import httpx
import pytest

import rpcshare
from rpcshare.rpc import Stub
from support.running_server import RPCSHARE, RunningServer
from support.token_issuer import AUDIENCE, ISSUER, claims, make_key, pem, token

pytestmark = pytest.mark.slow  # real servers, several of them at a time

KEY = make_key("EdDSA")

# Seconds. It is 5 as promised, and what a busy machine adds.
SOON = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = tmp_path_factory.mktemp("revocations")
    (path / "key.pem").write_bytes(pem(KEY))
    options = [f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}", f"--jwt-key={path / 'key.pem'}"]
    with RunningServer(path / "data", *options) as running:
        yield running


def run(server: RunningServer, *words: str) -> subprocess.CompletedProcess[str]:
    command = [RPCSHARE, "token", *words, f"--data-dir={server.data_dir}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def own_token(server: RunningServer, subject: str) -> tuple[str, str]:
    made = run(server, "create", "--subject", subject)
    return made.stdout.strip(), made.stderr.split()[-1]


def status(server: RunningServer, text: str) -> int:
    headers = {"Authorization": f"Bearer {text}"}
    return httpx.get(f"{server.url}/api/my-sessions", headers=headers).status_code


async def until_refused(server: RunningServer, text: str) -> None:
    async with asyncio.timeout(SOON):
        while await asyncio.to_thread(status, server, text) != 401:  # noqa: ASYNC110 -- another process's doing
            await asyncio.sleep(0.2)


async def use_again_and_again(api: rpcshare.ShareClient | Stub) -> None:
    while True:
        await api.whoami()
        await asyncio.sleep(0.1)


async def test_a_token_is_ended_by_the_id_that_was_printed_and_so_is_its_connection(
    server: RunningServer,
) -> None:
    text, token_id = await asyncio.to_thread(own_token, server, "alice")
    other, _ = await asyncio.to_thread(own_token, server, "alice")
    async with rpcshare.connect(server.url, token=text) as api:
        assert (await api.whoami())["subject"] == "alice"
        done = await asyncio.to_thread(run, server, "revoke", "--jti", token_id)
        assert done.returncode == 0, done.stderr
        async with asyncio.timeout(SOON):
            with pytest.raises(rpcshare.RpcError):
                await use_again_and_again(api)
    await until_refused(server, text)
    assert await asyncio.to_thread(status, server, other) == 200


async def test_a_subject_s_tokens_are_ended_whoever_issued_them_and_new_ones_are_good(
    server: RunningServer,
) -> None:
    own, _ = await asyncio.to_thread(own_token, server, "carol")
    of_issuer = token(KEY, "EdDSA", claims(sub="carol"))
    assert await asyncio.to_thread(status, server, own) == 200
    done = await asyncio.to_thread(run, server, "revoke", "--subject", "carol")
    assert done.returncode == 0, done.stderr
    await until_refused(server, own)
    assert await asyncio.to_thread(status, server, of_issuer) == 401
    new, _ = await asyncio.to_thread(own_token, server, "carol")
    assert await asyncio.to_thread(status, server, new) == 200


def test_what_was_ended_is_listed(server: RunningServer) -> None:
    run(server, "revoke", "--jti", "listed-1", "--issuer", ISSUER, "--expires", "1h")
    found = json.loads(run(server, "list-revoked", "--json").stdout)
    (listed,) = [each for each in found if each["jti"] == "listed-1"]
    assert (listed["issuer"], listed["subject"]) == (ISSUER, None)
    assert listed["expiresAt"] - listed["revokedAt"] == 3_600_000
    assert "listed-1" in run(server, "list-revoked").stdout


@pytest.mark.parametrize("words", [[], ["--all", "--jti", "x"], ["--subject", "a", "--jti", "x"]])
def test_which_tokens_are_meant_has_to_be_said_in_one_way(server: RunningServer, words: list[str]) -> None:
    done = run(server, "revoke", *words)
    assert (done.returncode, "give one of" in done.stderr) == (2, True)


@pytest.mark.slow
async def test_all_tokens_are_ended_at_once(server: RunningServer) -> None:
    texts = [(await asyncio.to_thread(own_token, server, name))[0] for name in ("dave", "erin")]
    texts.append(token(KEY, "EdDSA"))
    await asyncio.to_thread(run, server, "revoke", "--all")
    for text in texts:
        await until_refused(server, text)
    new, _ = await asyncio.to_thread(own_token, server, "dave")
    assert await asyncio.to_thread(status, server, new) == 200
