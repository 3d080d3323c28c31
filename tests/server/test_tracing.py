"""Spans for OpenTelemetry: what there is one of, whose it is, and that there are none unasked."""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from rpcshare.auth.admin_token import AdminTokenVerifier
from rpcshare.auth.authenticator import Authenticator
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.server.app import create_app
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore
from rpcshare.storage.observed import ObservedStore
from rpcshare.tracing import Tracing, find_tracing

TOKEN = "an-admin-token-of-these-tests"
BASE = "http://share.example"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def spans() -> Any:
    return pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="needs opentelemetry-sdk"
    ).InMemorySpanExporter()


@pytest.fixture
async def client(tmp_path: Path, spans: Any) -> AsyncIterator[httpx.AsyncClient]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracing = Tracing(provider.get_tracer("test"))
    store = ObservedStore(MemoryStore(), tracing)
    service = ShareService(store, LocalBroadcaster(), Credentials(UUID(int=7), BASE))
    authenticator = Authenticator([AdminTokenVerifier(TOKEN)])
    app, connections = create_app(Settings(data_dir=tmp_path), service, authenticator, BASE, tracing=tracing)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
        yield client
    await connections.close()
    await service.close()


async def test_a_request_is_a_span_of_the_trace_that_it_names(client: httpx.AsyncClient, spans: Any) -> None:
    await client.get("/api/share/nowhere0/data?token=hidden", headers=HEADERS)
    span = spans.get_finished_spans()[-1]
    assert span.name == "GET /api/share/{share_id}/data"
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert span.attributes["http.response.status_code"] == 404
    assert span.attributes["http.route"] == "/api/share/{share_id}/data"


async def test_calls_and_store_operations_are_spans_within_that_of_the_request(
    client: httpx.AsyncClient, spans: Any
) -> None:
    body = '["push",["pipeline",0,["createShare"],["ses_of_a_trace_00001"]]]\n["pull",1]'
    answer = await client.post("/rpc", headers=HEADERS, content=body)
    assert "secret" in answer.text
    finished = {span.name: span for span in spans.get_finished_spans()}
    request, call, put = (finished[name] for name in ("POST /rpc", "rpc createShare", "store put"))
    assert call.parent.span_id == request.context.span_id
    assert put.parent.span_id == call.context.span_id
    assert f"{put.context.trace_id:032x}" == TRACE


async def test_no_secret_is_in_any_span(client: httpx.AsyncClient, spans: Any) -> None:
    body = '["push",["pipeline",0,["syncShare"],["nowhere0","hidden-1",[[]]]]]\n["pull",1]'
    await client.post("/rpc", headers=HEADERS, content=body)
    await client.get(f"/k/{TOKEN}/share/nowhere0?password=hidden-1", headers={"Cookie": "a=hidden-1"})
    shown = " ".join(span.to_json() for span in spans.get_finished_spans())
    assert "rpc syncShare" in shown
    for secret in (TOKEN, "hidden-1", "nowhere0"):
        assert secret not in shown


async def test_a_call_that_fails_has_its_code(client: httpx.AsyncClient, spans: Any) -> None:
    body = '["push",["pipeline",0,["getShare"],["nowhere0"]]]\n["pull",1]'
    await client.post("/rpc", headers=HEADERS, content=body)
    call = next(span for span in spans.get_finished_spans() if span.name == "rpc getShare")
    assert call.attributes["error.type"] == "SHARE_NOT_FOUND"
    assert not call.events


def test_without_the_package_there_is_no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    assert find_tracing() is None


def test_a_server_that_is_not_traced_does_not_import_the_package() -> None:
    program = "import sys, rpcshare.server.run; sys.exit('opentelemetry' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
