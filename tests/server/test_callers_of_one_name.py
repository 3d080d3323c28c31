"""An API key, a token, a certificate and a proxy's header of one name at a running server."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from rpcshare.shares import objects
from rpcshare.storage import open_store
from support.authorities import Authority, client_context
from support.narrowing import not_none
from support.running_server import RPCSHARE, RunningServer
from support.token_issuer import AUDIENCE, ISSUER, claims, make_key, pem, token

pytestmark = pytest.mark.slow  # real servers, several of them at a time

KEY = make_key("EdDSA")
PROXY = ["--trusted-proxy=127.0.0.1", "--proxy-subject-header=X-User"]


class Deployment(NamedTuple):
    folder: Path
    authority: Authority
    jwt: list[str]
    tls: list[str]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self, *words: str) -> str:
        made = subprocess.run(
            [RPCSHARE, *words, f"--data-dir={self.data}"], capture_output=True, text=True, check=True
        )
        return made.stdout.strip()

    def headers(self, source: str, name: str = "ci") -> dict[str, str]:
        match source:
            case "key":
                return {"Authorization": "Bearer " + self.run("keys", "create", name)}
            case "token":
                return {"Authorization": "Bearer " + self.run("token", "create", "--subject", name)}
            case "jwt":
                return {"Authorization": "Bearer " + token(KEY, "EdDSA", claims(sub=name))}
            case _:
                return {"X-User": name}


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    (tmp_path / "idp.pem").write_bytes(pem(KEY))
    authority = Authority(tmp_path / "ca")
    tls = authority.issue_to_server()
    return Deployment(
        tmp_path,
        authority,
        [f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}", f"--jwt-key={tmp_path}/idp.pem"],
        [f"--tls-cert={tls}", f"--tls-key={tls}", f"--client-ca={authority.path}"],
    )


def created(url: str, headers: dict[str, str], session: str = "ses_of_one_name_01", **how) -> dict[str, str]:
    body = {"sessionID": session, "visibility": "private"}
    answer = httpx.post(f"{url}/api/share", json=body, headers=headers, **how)
    assert answer.status_code == 200, answer.text
    return answer.json()


def listed(url: str, headers: dict[str, str]) -> set[str]:
    answer = httpx.get(f"{url}/api/my-sessions", headers=headers)
    return {session["id"] for session in answer.json()["sessions"]}


def removed(url: str, headers: dict[str, str], share_id: str) -> int:
    return httpx.delete(f"{url}/api/share/{share_id}", headers=headers).status_code


def test_each_source_has_a_share_of_its_own(deployment: Deployment) -> None:
    headers = {source: deployment.headers(source) for source in ("key", "token", "jwt", "proxy")}
    with RunningServer(deployment.data, *deployment.jwt, *PROXY) as server:
        made = {source: created(server.url, shown) for source, shown in headers.items()}
        seen = {source: listed(server.url, shown) for source, shown in headers.items()}
        me = httpx.get(f"{server.url}/api/share/{made['key']['id']}", headers=headers["jwt"])
    assert len({each["secret"] for each in made.values()}) == 4
    assert seen == {source: {each["id"]} for source, each in made.items()}
    assert me.status_code == 403


def test_a_certificate_does_not_get_the_secret_of_a_key_s_share(deployment: Deployment) -> None:
    own = deployment.headers("key")
    shown = deployment.authority.pem(deployment.authority.issue("ci"))
    with RunningServer(deployment.data, *deployment.tls) as server:
        anybody = client_context(deployment.authority)
        made = created(server.url, own, verify=anybody)
        by_certificate = created(server.url, {}, verify=client_context(deployment.authority, shown))
        again = created(server.url, own, verify=anybody)
    assert by_certificate["secret"] != made["secret"]
    assert again == made


def test_united_sources_get_the_same_share(deployment: Deployment) -> None:
    key, jwt, proxy = (deployment.headers(source) for source in ("key", "jwt", "proxy"))
    with RunningServer(deployment.data, *deployment.jwt, *PROXY, "--same-subjects=key,jwt") as server:
        made = created(server.url, key)
        assert created(server.url, jwt) == made
        assert listed(server.url, jwt) == {made["id"]}
        assert created(server.url, proxy)["secret"] != made["secret"]


async def without_sources(data: Path, share_id: str) -> None:
    """Have the store as it was written before owners had a source, and has not been used since."""
    store = await open_store(f"sqlite:///{data}/store.sqlite3")
    try:
        await store.delete(["auth/unprefixed-owners"])
        keys = [objects.head_key(share_id)]
        keys += [info.key async for info in store.list(f"index/{share_id}/")]
        keys += [info.key async for info in store.list("session/")]
        for key in keys:
            found = not_none(await store.get(key))
            plain = objects.unpack(found.body)
            for source in (b"key", b"jwt:https://id.example", b"proxy"):
                plain = plain.replace(source + b"\\u001f", b"")
            assert plain != objects.unpack(found.body)
            await store.put(key, plain, if_match=found.etag)
    finally:
        await store.close()


@pytest.mark.parametrize("source", ["key", "jwt", "proxy"])
async def test_a_store_from_before_goes_on_working_for_its_one_source(
    deployment: Deployment, source: str
) -> None:
    shown = deployment.headers(source)
    options = {"key": [], "jwt": deployment.jwt, "proxy": PROXY}[source]
    with RunningServer(deployment.data, *options) as server:
        made = created(server.url, shown)
        server.stop()
        await without_sources(deployment.data, made["id"])
        server.restart()
        assert created(server.url, shown) == made
        assert listed(server.url, shown) == {made["id"]}
        gone = removed(server.url, shown, made["id"])
        assert gone == 200
        # Whoever had the session's secret has it again.
        assert created(server.url, shown) == made


async def test_a_setting_tells_whose_the_shares_from_before_are(deployment: Deployment) -> None:
    key, jwt = deployment.headers("key"), deployment.headers("jwt")
    with RunningServer(deployment.data, *deployment.jwt) as server:
        made = created(server.url, jwt)
    await without_sources(deployment.data, made["id"])
    # There is a key of the name, so that would have it.
    with RunningServer(deployment.data, *deployment.jwt, "--unprefixed-subjects=jwt") as server:
        assert created(server.url, key)["secret"] != made["secret"]
        again = created(server.url, jwt)
        assert (again["id"], again["secret"]) == (made["id"], made["secret"])
