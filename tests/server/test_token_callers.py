"""Signed tokens at a running server: its own, and those of an issuer in the settings."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets

import rpcshare
from support.running_server import RPCSHARE, RunningServer, bare_environment
from support.token_issuer import AUDIENCE, ISSUER, claims, jwk, make_key, pem, token

pytestmark = pytest.mark.slow  # real servers, several of them at a time

KEY = make_key("ES256")
SECRET = "a secret that two servers share, 32 bytes or more"


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = tmp_path_factory.mktemp("tokens")
    (path / "key.pem").write_bytes(pem(KEY))
    options = [
        f"--jwt-issuer={ISSUER}",
        f"--jwt-audience={AUDIENCE}",
        f"--jwt-key={path / 'key.pem'}",
        "--jwt-role-claim=realm_access.roles",
        "--jwt-role-map=boss=admin,auditor=read",
        "--log-level=debug",
    ]
    with RunningServer(path / "data", *options) as server:
        yield server


def status(server: RunningServer, text: str) -> int:
    headers = {"Authorization": f"Bearer {text}"}
    return httpx.get(f"{server.url}/api/my-sessions", headers=headers).status_code


def own_token(data_dir: Path, *options: str) -> str:
    process = subprocess.run(
        [RPCSHARE, "token", "create", f"--data-dir={data_dir}", *options],
        env=bare_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout.strip()


async def test_an_issuer_s_token_stands_for_its_subject(trusting: RunningServer) -> None:
    payload = claims(realm_access={"roles": ["auditor", "nobody"]})
    async with rpcshare.connect(trusting.url, token=token(KEY, "ES256", payload)) as api:
        assert await api.whoami() == {"subject": "alice", "scopes": ["create", "read"]}


async def test_the_server_accepts_what_it_signed_itself(trusting: RunningServer) -> None:
    text = own_token(trusting.data_dir, "--subject=bob", "--scope=create", "--scope=read")
    async with rpcshare.connect(trusting.url, token=text) as api:
        assert await api.whoami() == {"subject": "bob", "scopes": ["create", "read"]}


def test_a_subject_has_shares_of_its_own_with_each_that_vouches_for_it(trusting: RunningServer) -> None:
    body = {"sessionID": "ses_of_alice_0001"}
    made = [
        httpx.post(f"{trusting.url}/api/share", json=body, headers={"Authorization": f"Bearer {text}"}).json()
        for text in (token(KEY, "ES256"), own_token(trusting.data_dir, "--subject=alice"))
    ]
    assert made[0]["id"] != made[1]["id"]
    assert made[0]["secret"] != made[1]["secret"]


REFUSED = {
    "none": token(None, "none"),
    "the public key as a secret": token(pem(KEY), "HS256"),
    "another key": token(make_key("ES256"), "ES256"),
    "another issuer": token(KEY, "ES256", claims(iss="https://other.example")),
    "another audience": token(KEY, "ES256", claims(aud="https://other.example")),
    "this server's name": token(KEY, "ES256", claims(iss="rpcshare", aud="rpcshare")),
    "expired": token(KEY, "ES256", claims(exp=time.time() - 5)),
    "not valid yet": token(KEY, "ES256", claims(nbf=time.time() + 3600)),
    "oversized": token(KEY, "ES256", claims(padding="x" * 9000)),
    "the name of the admin": token(KEY, "ES256", claims(sub="admin")),
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_a_token_that_is_not_right_is_refused(trusting: RunningServer, text: str) -> None:
    assert status(trusting, text) == 401


@pytest.mark.parametrize("path", ["/k/{text}/api/my-sessions", "/api/my-sessions"])
def test_a_token_is_refused_where_a_key_is_expected(trusting: RunningServer, path: str) -> None:
    text = token(KEY, "ES256")
    headers = {} if "{text}" in path else {"Authorization": f"ApiKey {text}"}
    assert httpx.get(trusting.url + path.format(text=text), headers=headers).status_code == 401


async def test_a_connection_ends_when_its_token_expires(trusting: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {token(KEY, 'ES256', claims(exp=time.time() + 1))}"}
    url = trusting.url.replace("http", "ws", 1) + "/rpc"
    async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
        with pytest.raises(websockets.ConnectionClosed):
            async with asyncio.timeout(5):
                await socket.recv()
        assert socket.close_code == 1008


def test_tokens_are_not_logged(trusting: RunningServer) -> None:
    good, bad = token(KEY, "ES256"), token(make_key("ES256"), "ES256")
    assert [status(trusting, text) for text in (good, bad)] == [200, 401]
    log = trusting.log.read_text()
    assert not any(part in log for text in (good, bad) for part in text.split("."))


def test_servers_with_one_signing_key_accept_each_other_s_tokens(
    trusting: RunningServer, tmp_path: Path
) -> None:
    text = own_token(trusting.data_dir, "--subject=bob")
    with RunningServer(tmp_path / "same", f"--signing-key={trusting.data_dir / 'signing-key'}") as same:
        assert status(same, text) == 200
    with RunningServer(tmp_path / "another") as another:
        assert status(another, text) == 401


def test_a_shared_secret_is_for_hmacs_and_is_not_shown(tmp_path: Path) -> None:
    options = [f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}", "--log-level=debug"]
    with RunningServer(tmp_path / "data", *options, env={"RPCSHARE_JWT_SECRET": SECRET}) as server:
        assert status(server, token(SECRET.encode(), "HS256")) == 200
        assert status(server, token(b"another secret, which is as long as this one", "HS256")) == 401
        assert status(server, token(KEY, "ES256")) == 401
        assert SECRET not in server.log.read_text()


def test_a_server_starts_although_its_issuer_is_down(tmp_path: Path) -> None:
    options = [f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}", "--jwks-url=http://127.0.0.1:9/"]
    with RunningServer(tmp_path / "data", *options) as server:
        answer = httpx.get(
            f"{server.url}/api/my-sessions",
            headers={"Authorization": f"Bearer {token(KEY, 'ES256', kid='one')}"},
        )
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert status(server, server.token) == 200


def test_settings_that_do_not_fit_together_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        RunningServer(tmp_path / "data", f"--jwt-issuer={ISSUER}")
    (line,) = str(caught.value).removeprefix("the server did not start: ").splitlines()
    assert line.startswith("rpcshare: --jwt-issuer: needs exactly one of --jwks-url, --jwt-key, --jwt-secret")


def test_a_file_may_hold_a_jwks(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [jwk(KEY, "one")]}))
    options = [f"--jwt-key={path}", f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}"]
    with RunningServer(tmp_path / "data", *options) as server:
        assert status(server, token(KEY, "ES256", kid="one")) == 200
        assert status(server, token(KEY, "ES256", kid="other")) == 401
