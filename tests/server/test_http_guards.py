"""What the HTTP API turns away before it does any work, and what other servers on the same store see."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.running_server import RunningServer


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_page_of_another_origin_is_refused(http: httpx.Client, method: str) -> None:
    path = "/api/share" if method == "POST" else "/api/share/nonexist"
    answer = http.request(method, path, headers={"Origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


def test_a_page_of_the_server_itself_is_not(server: RunningServer, http: httpx.Client) -> None:
    assert http.get("/api/my-sessions", headers={"Origin": server.url}).status_code == 200


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that lets in whoever asks, and whose public URL is not the only name that leads to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with RunningServer(
        tmp_path_factory.mktemp("public") / "data",
        f"--port={port}",
        f"--public-url=http://localhost:{port}",
        "--anonymous-create",
        "--trusted-proxy=127.0.0.1",
        "--proxy-subject-header=X-User",
        "--proxy-scope=create",
    ) as server:
        yield server


@pytest.mark.parametrize("headers", [{}, {"X-User": "alice"}], ids=["anonymous", "by a proxy"])
@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://localhost", "localhost", 200),
        ("http://localhost", "backend", 200),
        ("http://rebound.example", "rebound.example", 403),
        ("https://rebound.example", "rebound.example", 403),
        ("https://localhost", "localhost", 403),
    ],
)
def test_with_a_public_url_no_other_name_of_the_server_is_its_own(
    public: RunningServer, origin: str, host: str, status: int, headers: dict[str, str]
) -> None:
    shown = {"Origin": f"{origin}:{public.port}", "Host": f"{host}:{public.port}", **headers}
    made = httpx.post(f"{public.url}/api/share", json={"sessionID": "ses_rebound"}, headers=shown)
    assert made.status_code == status
    batch = httpx.post(f"{public.url}/rpc", content='["push",["pipeline",0,["ping"]]]\n', headers=shown)
    assert batch.status_code == status
    form = httpx.post(f"{public.url}/sign-in", data={"token": public.token}, headers=shown)
    assert form.status_code == (303 if status == 200 else status)


def test_a_body_of_very_many_values_is_refused_at_little_cost(http: httpx.Client) -> None:
    body = b'{"secret":"x","data":[' + b"[]," * 3_000_000 + b"[]]}"
    answer = http.post("/api/share/nonexist/sync", content=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_no_redirect_leads_behind_the_key_in_a_path(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/k/{server.token}/healthz/")
    assert answer.status_code == 404
    assert "location" not in answer.headers


@pytest.mark.slow
def test_two_servers_on_one_store_see_each_others_shares(tmp_path: Path) -> None:
    store = f"--store=sqlite:///{tmp_path / 'shared.sqlite3'}"
    secret = "--shared-secret=12345678-1234-5678-9234-567812345678"
    with (
        RunningServer(tmp_path / "one", store, secret) as one,
        RunningServer(tmp_path / "other", store, secret) as other,
    ):
        headers = {"Authorization": f"Bearer {one.token}"}
        share = httpx.post(
            f"{one.url}/api/share", json={"sessionID": "ses_two_nodes_01"}, headers=headers
        ).json()
        path = f"/api/share/{share['id']}"
        assert httpx.get(other.url + path).json()["metadata"]["syncCount"] == 0
        part = {"type": "part", "data": {"id": "prt_1"}}
        httpx.post(f"{one.url}{path}/sync", json={"secret": share["secret"], "data": [part]})
        assert httpx.get(other.url + path).json()["parts"] == [{"id": "prt_1"}]
        httpx.request("DELETE", other.url + path, json={"secret": share["secret"]})
        assert httpx.get(one.url + path).status_code == 404
