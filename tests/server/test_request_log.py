"""What an operator sees of each request: its ID, its line in the access log, its span."""

import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from structlog.testing import capture_logs

import rpcshare
from rpcshare.auth.admin_token import AdminTokenVerifier
from rpcshare.auth.authenticator import Authenticator
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.server.app import create_app
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore
from support.running_server import RunningServer

TOKEN = "an-admin-token-of-these-tests"
BASE = "http://share.example"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, access_log=True)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    logging.getLogger("rpcshare.access").setLevel(logging.INFO)
    with capture_logs() as lines:
        yield lines


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    service = ShareService(MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), BASE))
    app, connections = create_app(settings, service, Authenticator([AdminTokenVerifier(TOKEN)]), BASE)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client
    await connections.close()
    await service.close()


async def test_a_request_is_a_line_with_who_asked_for_what_and_how_it_ended(
    client: httpx.AsyncClient, log: list[Any]
) -> None:
    answer = await client.get("/api/sessions", headers={"Authorization": f"Bearer {TOKEN}"})
    [line] = [each for each in log if each["event"] == "request"]
    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/sessions", 200)
    assert (line["subject"], line["address"]) == ("admin", "127.0.0.1")
    assert line["bytes"] == len(answer.content)
    assert line["ms"] >= 0
    assert line["request_id"] == answer.headers["X-Request-Id"]


async def test_the_status_of_a_refusal_is_a_number(client: httpx.AsyncClient, log: list[Any]) -> None:
    await client.get("/api/share/absent00")
    [line] = [each for each in log if each["event"] == "request"]
    assert str(line["status"]) == "404"


@pytest.mark.parametrize(
    "path",
    [
        f"/k/{TOKEN}/api/share/secretshare/data?token={TOKEN}&secret=hidden-1",
        f"/k/{TOKEN}/nowhere/hidden-1",
        f"//k/{TOKEN}/api/sessions",
        f"/K/{TOKEN}/api/sessions",
        "/share/secretshare?password=hidden-1",
    ],
)
async def test_no_secret_and_no_link_is_in_a_line(
    client: httpx.AsyncClient, log: list[Any], path: str
) -> None:
    await client.get(path, headers={"Cookie": "a=hidden-1", "Referer": "http://a/hidden-1"})
    assert any(line["event"] == "request" for line in log)
    for secret in (TOKEN, "hidden-1", "secretshare"):
        assert secret not in str([line for line in log if line["event"] == "request"])


async def test_nothing_is_logged_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert not Settings(data_dir=tmp_path).access_log


@pytest.mark.parametrize("brought", ["req-1", "Root=1-67891233:abc/def+x", "a" * 128])
async def test_the_id_that_a_request_brings_is_in_its_answer(client: httpx.AsyncClient, brought: str) -> None:
    for path in ("/healthz", "/nowhere", "/api/sessions", "/sessions"):
        answer = await client.get(path, headers={"X-Request-Id": brought})
        assert answer.headers.get_list("X-Request-Id") == [brought]


@pytest.mark.parametrize("brought", ["", "a" * 129, "with space", "é", "<b>", "a\tb"])
async def test_what_is_no_id_is_replaced(client: httpx.AsyncClient, brought: str) -> None:
    answer = await client.get("/healthz", headers=[(b"X-Request-Id", brought.encode())])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])


async def test_of_two_ids_neither_is_taken(client: httpx.AsyncClient) -> None:
    answer = await client.get("/healthz", headers=[("X-Request-Id", "one"), ("X-Request-Id", "two")])
    assert answer.headers["X-Request-Id"] not in ("one", "two")


async def test_an_error_has_the_id_in_a_header_and_in_the_log_but_not_in_its_body(
    client: httpx.AsyncClient, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("hidden-1")

    monkeypatch.setattr(ShareService, "list_sessions", fail)
    headers = {"X-Request-Id": "req-500", "Authorization": f"Bearer {TOKEN}"}
    answer = await client.get("/api/sessions", headers=headers)
    assert answer.json() == {"error": "Internal server error", "code": "INTERNAL"}
    assert answer.headers["X-Request-Id"] == "req-500"
    [error] = [line for line in log if line["event"] == "internal error"]
    assert error["request_id"] == "req-500"
    assert "hidden-1" not in str(log)


async def test_what_nobody_caught_is_an_error_as_json_with_the_id(
    client: httpx.AsyncClient, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("hidden-1")

    monkeypatch.setattr("rpcshare.server.app._uncached", fail)
    answer = await client.get("/healthz", headers={"X-Request-Id": "req-501"})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (500, "req-501")
    assert answer.json()["code"] == "INTERNAL"
    assert [line["status"] for line in log if line["event"] == "request"] == [500]


async def test_an_rpc_session_is_told_of_when_it_opens_and_closes(tmp_path: Path) -> None:
    with RunningServer(
        tmp_path / "data", "--access-log", "--log-format=json", "--log-level=warning"
    ) as server:
        async with rpcshare.connect(server.url, token=server.token) as api:
            await api.whoami()
            await api.createShare("ses_of_the_access_log_1", [])
        async with httpx.AsyncClient() as client:
            await client.get(f"{server.url}/k/{server.token}/api/sessions")
        server.stop()
        lines = [
            json.loads(line) for line in server.log.read_text().splitlines() if "rpcshare.access" in line
        ]
    assert server.token not in server.log.read_text()
    opened, closed = (next(each for each in lines if each["event"] == f"RPC session {how}") for how in HOW)
    assert opened["subject"] == closed["subject"] == "admin"
    assert closed["calls"] == 2
    handshake = next(each for each in lines if each.get("status") == 101)
    assert handshake["route"] == "/rpc"
    assert handshake["request_id"] == opened["request_id"] == closed["request_id"]
    assert [each["status"] for each in lines if each.get("route") == "/api/sessions"] == [200]


HOW = ("opened", "closed")
