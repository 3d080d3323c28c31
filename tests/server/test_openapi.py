"""The OpenAPI document against the application: the same routes, and Schemathesis finds nothing."""

import subprocess
import sys
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from starlette.routing import Route, WebSocketRoute

from rpcshare.auth.handshake import Authenticator
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.server.app import create_app
from rpcshare.server.operation import ApiRoute, ApiSocket
from rpcshare.shares.credentials import Credentials
from rpcshare.shares.service import ShareService
from rpcshare.storage import MemoryStore
from running_server import RunningServer

SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict:
    return httpx.get(f"{server.url}/openapi.json").json()


async def test_each_route_is_in_the_document_and_nothing_else_is(document: dict) -> None:
    credentials = Credentials(UUID(int=7), "http://share.example")
    service = ShareService(MemoryStore(), LocalBroadcaster(), credentials)
    app, _ = create_app(Settings(), service, Authenticator([]), "http://share.example")
    await service.close()
    routes = [route for route in app.routes if isinstance(route, Route) and route.include_in_schema]
    sockets = [route for route in app.routes if isinstance(route, WebSocketRoute)]
    assert [route for route in routes if not isinstance(route, ApiRoute)] == []
    assert [route for route in sockets if not isinstance(route, ApiSocket)] == []
    there = {(route.path, method) for route in routes for method in (route.methods or ()) if method != "HEAD"}
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == there
    assert set(document["x-websockets"]) == {route.path for route in sockets}


def test_operations_have_ids_of_their_own(document: dict) -> None:
    ids = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.timeout(120)  # it takes 15 s on a machine with nothing else to do
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        finished = subprocess.run(
            [
                *(SCHEMATHESIS, "run", f"{server.url}/openapi.json", "--no-color", "--seed=1"),
                # Both are sent, since a generated one in either place would be refused before anything else.
                *("-H", f"Authorization: Bearer {server.token}"),
                *("-H", f"x-opencode-share-key: {server.token}"),
                # Event streams do not end by themselves: what has come by then is what is checked.
                *("--max-examples=5", "--request-timeout=0.4"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert finished.returncode == 0, finished.stdout
    assert "No issues found" in finished.stdout
