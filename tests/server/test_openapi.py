"""The OpenAPI document against the application: the same routes, and Schemathesis finds nothing."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.routing import Route, WebSocketRoute

from rpcshare.auth.authenticator import Authenticator
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.server.app import create_app
from rpcshare.server.operation import ApiRoute, ApiSocket
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore
from support.running_server import RunningServer

SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict:
    return httpx.get(f"{server.url}/openapi.json").json()


async def test_each_route_is_in_the_document_and_nothing_else_is(document: dict) -> None:
    credentials = Credentials(UUID(int=7), "http://share.example")
    service = ShareService(MemoryStore(), LocalBroadcaster(), credentials)

    async def open_vault() -> Any:
        raise AssertionError("nothing is asked of it")

    app, _ = create_app(Settings(), service, Authenticator([]), "http://share.example", open_vault=open_vault)
    await service.close()
    routes = [route for route in app.routes if isinstance(route, Route) and route.include_in_schema]
    # That of live pages is theirs alone, as the pages' routes are.
    all_sockets = [route for route in app.routes if isinstance(route, WebSocketRoute)]
    sockets = [route for route in all_sockets if route.path != "/share/{share_id}/live"]
    assert [route for route in routes if not isinstance(route, ApiRoute)] == []
    assert [route for route in sockets if not isinstance(route, ApiSocket)] == []
    there = {(route.path, method) for route in routes for method in (route.methods or ()) if method != "HEAD"}
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == there
    assert set(document["x-websockets"]) == {route.path for route in sockets}


def test_operations_have_ids_of_their_own(document: dict) -> None:
    ids = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.timeout(200)
@pytest.mark.rare
@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        # A GET of /rpc has an answer, 426, though the document has none: it is where WebSockets are opened.
        examine(server, tmp_path, "--exclude-path-regex=(/events|^/rpc|^/rpc/share)$", "--max-examples=5")
        # Event streams do not end by themselves: what has come by then is what is checked.
        examine(
            server, tmp_path, "--include-path-regex=/events$", "--max-examples=3", "--request-timeout=0.4"
        )


# What it makes expires, and then there is no better answer than that. By default it would take that for a
# refusal of what was sent, or for a failure to refuse it.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 429, "5xx"]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 410, 415, 429, "5xx"]

# What is searched for has a grammar, of which no pattern can tell.
[[operations]]
include-name = "GET /api/search"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400]

# That an id is of no entry of one's vault is a fault of the id; nor does a pattern tell what makes a name.
[[operations]]
include-path-regex = "^/api/keys"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 429, "5xx"]
"""


def examine(server: RunningServer, folder: Path, *options: str) -> None:
    (folder / "schemathesis.toml").write_text(CONFIG)
    finished = subprocess.run(
        [
            *(SCHEMATHESIS, "run", f"{server.url}/openapi.json", "--no-color", "--seed=1", *options),
            # Both are sent, since a generated one in either place would be refused before anything else.
            *("-H", f"Authorization: Bearer {server.token}"),
            *("-H", f"x-opencode-share-key: {server.token}"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    assert re.search(r"^ +[1-9][0-9]+ generated, ", finished.stdout, re.MULTILINE)
