"""The numbers that a server gives to Prometheus."""

import asyncio
import platform
import time
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import Secret

import rpcshare
from rpcshare.auth.authenticator import Authenticator
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.compiled import core
from rpcshare.config import Settings
from rpcshare.database import DatabaseError
from rpcshare.server import metrics
from rpcshare.server.app import create_app
from rpcshare.shares.search import SearchSettings
from rpcshare.shares.search_index import SearchIndex
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore
from support.running_server import RunningServer


def numbers(server: RunningServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def number(server: RunningServer, name: str, **labels: str) -> float:
    return numbers(server).get((name, frozenset(labels.items())), 0)


@pytest.fixture
def busy(tmp_path: Path):
    with RunningServer(tmp_path / "data") as server:
        yield server


async def test_calls_are_counted_by_method_and_outcome(busy: RunningServer) -> None:
    async with rpcshare.connect(busy.url, token=busy.token) as api:
        share = await api.createShare("ses_metrics_00000001", [])
        await api.syncShare(share["id"], share["secret"], [{"type": "part", "data": {"id": "prt_1"}}])
        for secret, code in [("wrong", "INVALID_SECRET"), (5, "INVALID_ARGUMENT")]:
            with pytest.raises(rpcshare.RpcError):
                await api.syncShare(share["id"], secret, [])
            assert number(busy, "rpcshare_rpc_calls_total", method="syncShare", outcome=code) == 1
        with pytest.raises(rpcshare.RpcError):
            await api.noSuchMethod(share["id"])
        with pytest.raises(rpcshare.RpcError):
            await api.authenticate("wrong")
        await api.subscribe(share["id"], print)
        assert number(busy, "rpcshare_rpc_sessions") == 1
        assert number(busy, "rpcshare_subscribers") == 1
    assert number(busy, "rpcshare_rpc_calls_total", method="syncShare", outcome="ok") == 1
    assert number(busy, "rpcshare_rpc_call_seconds_count", method="createShare") == 1
    assert number(busy, "rpcshare_auth_failures_total", over="rpc") == 1
    assert number(busy, "rpcshare_shares_created_total") == 1
    assert number(busy, "rpcshare_syncs_total") == 1
    assert number(busy, "rpcshare_synced_bytes_total") > 0
    methods = {dict(labels).get("method") for _, labels in numbers(busy)}
    assert "noSuchMethod" not in methods


def test_the_build_tells_which_core_runs(busy: RunningServer) -> None:
    build = {"version": rpcshare.__version__, "core": core(), "python": platform.python_version()}
    assert number(busy, "rpcshare_build_info", **build) == 1


def test_requests_are_counted_by_route_and_not_by_path(busy: RunningServer) -> None:
    for _ in range(2):
        httpx.get(f"{busy.url}/k/{busy.token}/api/share/nowhere0/data")
    httpx.request("BREW", f"{busy.url}/healthz")
    httpx.get(f"{busy.url}/api/sessions")
    route = "/api/share/{share_id}/data"
    assert number(busy, "rpcshare_http_requests_total", route=route, method="GET", status="404") == 2
    assert number(busy, "rpcshare_http_request_seconds_count", route=route, method="GET") == 2
    assert number(busy, "rpcshare_auth_failures_total", over="http") == 1
    shown = str(numbers(busy))
    assert "nowhere0" not in shown
    assert busy.token not in shown
    assert "BREW" not in shown


async def test_sockets_are_counted_by_how_their_handshakes_end(busy: RunningServer) -> None:
    async with rpcshare.connect(busy.url, token=busy.token) as api:
        await api.whoami()
    with pytest.raises(Exception, match="Unauthorized"):
        async with rpcshare.connect(busy.url) as api:
            await api.whoami()
    for status in ("101", "401"):
        assert number(busy, "rpcshare_http_requests_total", route="/rpc", method="GET", status=status) == 1


async def test_an_event_loop_that_was_late_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_LAG_EVERY", 0.01)
    service = ShareService(
        MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), "http://share.example")
    )
    measured = metrics.Metrics(service)
    with measured.measuring_lag():
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 -- this is what is to be seen
        await asyncio.sleep(0.05)
        seen = [lag(measured.text().decode()), lag(measured.text().decode())]
    await service.close()
    assert seen[0] > 0.1
    assert seen[1] < seen[0]


def lag(text: str) -> float:
    found = (
        family for family in text_string_to_metric_families(text) if family.name.endswith("_lag_seconds")
    )
    return next(found).samples[0].value


async def test_the_store_the_database_the_process_and_what_waits_are_seen(busy: RunningServer) -> None:
    async with rpcshare.connect(busy.url, token=busy.token) as api:
        await api.createShare("ses_metrics_00000002", [])
        await api.searchShares({"query": "nothing"})
    seen = numbers(busy)
    names = {name for name, _ in seen}
    assert number(busy, "rpcshare_store_operation_seconds_count", operation="put") > 0
    assert number(busy, "rpcshare_store_operation_failures_total", operation="put") == 0
    assert number(busy, "rpcshare_store_written_bytes_total") > 0
    assert number(busy, "rpcshare_database_operation_seconds_count", operation="select") > 0
    assert number(busy, "rpcshare_index_available") == 1
    assert number(busy, "rpcshare_index_lag_seconds") < 60
    assert {
        "rpcshare_store_read_bytes_total",
        "rpcshare_index_waiting_shares",
        "rpcshare_queue_depth",
    } <= names
    assert number(busy, "process_resident_memory_bytes") > 10_000_000
    assert {"process_cpu_seconds_total", "process_open_fds", "process_max_fds"} <= names
    assert not [name for name in names if name.endswith("_created")]


def test_refusals_are_counted_by_limit(tmp_path: Path) -> None:
    with RunningServer(
        tmp_path / "data",
        "--max-failed-authentications=1",
        "--max-creates=1",
        env={"RPCSHARE_MAX_CREATES": "", "RPCSHARE_MAX_FAILED_AUTHENTICATIONS": ""},
    ) as server:
        right = {"Authorization": f"Bearer {server.token}"}
        for session in ("ses_metrics_00000003", "ses_metrics_00000004"):
            httpx.post(f"{server.url}/api/share", json={"sessionID": session}, headers=right)
        for key in ("wrong-1", "wrong-2"):
            httpx.get(f"{server.url}/api/sessions", headers={"Authorization": f"Bearer {key}"})
        for limit in ("creates", "failed_authentications"):
            assert number(server, "rpcshare_limit_refusals_total", limit=limit) == 1
        for limit in ("connections", "pages", "bodies"):
            assert number(server, "rpcshare_limit_refusals_total", limit=limit) == 0


def app_of(settings: Settings) -> httpx.AsyncClient:
    service = ShareService(
        MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), "http://share.example")
    )
    app, _ = create_app(settings, service, Authenticator([]), "http://share.example")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://share.example")


async def test_metrics_can_be_shut(tmp_path: Path) -> None:
    async with app_of(Settings(data_dir=tmp_path, metrics=False)) as client:
        assert (await client.get("/metrics")).status_code == 404
        assert "/metrics" not in (await client.get("/openapi.json")).json()["paths"]


async def test_metrics_may_have_a_token(tmp_path: Path) -> None:
    async with app_of(Settings(data_dir=tmp_path, metrics_token=Secret("right-token"))) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right-token"}):
            refused = await client.get("/metrics", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHORIZED")
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert "rpcshare_build" not in refused.text
        answer = await client.get("/metrics", headers={"Authorization": "Bearer right-token"})
        assert "rpcshare_build_info" in answer.text


async def test_the_index_is_behind_for_as_long_as_its_database_is_away() -> None:
    async def away() -> SearchIndex:
        raise DatabaseError("the database is away")

    service = ShareService(
        MemoryStore(),
        LocalBroadcaster(),
        Credentials(UUID(int=7), "http://share.example"),
        search=SearchSettings(away),
    )
    service.start_search()
    lag = service.index_lag()
    while lag.is_available:
        await asyncio.sleep(0.01)
        lag = service.index_lag()
    await asyncio.sleep(0.02)
    later = service.index_lag()
    await service.close()
    assert later.seconds > lag.seconds
