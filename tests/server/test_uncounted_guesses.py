"""Ways around the limit on guesses, and around the audit log, at a server that runs."""

import json
from collections.abc import Iterator

import httpx
import pytest

from support.running_server import RunningServer

pytestmark = pytest.mark.slow

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("guesses") / "data"
    with RunningServer(data, f"--audit-log={data.with_name('audit.log')}") as server:
        yield server


@pytest.fixture
def owner(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.token}"}) as client:
        yield client


def refusals(server: RunningServer, share_id: str) -> list[tuple[object, object]]:
    lines = map(json.loads, server.data_dir.with_name("audit.log").read_text("utf-8").splitlines())
    return [(line["action"], line.get("reason")) for line in lines if line["share"] == share_id][1:]


@pytest.mark.parametrize("name", ["rpcshare_view", "rpcshare_view_12345678"])
def test_the_cookie_of_a_view_takes_no_token_that_could_be_guessed(server: RunningServer, name: str) -> None:
    answer = httpx.get(f"{server.url}/api/sessions", headers={"Cookie": f"{name}={server.token}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("what", ["", "/data", "/metadata"])
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": '"x"'}])
def test_whoever_is_refused_a_share_over_http_is_in_the_audit_log(
    server: RunningServer, owner: httpx.Client, what: str, headers: dict[str, str]
) -> None:
    session_id = f"ses_{what.strip('/')}{len(headers)}_audited"[::-1]
    made = owner.post("/api/share", json={"sessionID": session_id, "password": PASSWORD}).json()
    path = f"{server.url}/api/share/{made['id']}{what}"
    assert httpx.get(path, auth=("", "wrong"), headers=headers).status_code == 401
    assert refusals(server, made["id"]) == [("share.read", "UNAUTHORIZED")]
