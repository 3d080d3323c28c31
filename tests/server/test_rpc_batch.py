"""``POST /rpc``: who may, how much, and what is answered."""

import asyncio
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.types import Message

from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.server.app import create_app
from rpcshare.shares import Credentials, ShareService
from rpcshare.storage import MemoryStore
from support.asgi import http_scope
from support.running_server import RunningServer

ADMIN_CALLER = Caller("admin", frozenset({Scope.ADMIN}))
WHOAMI = '["push",["pipeline",0,["whoami"],[]]]\n["pull",1]'
ADMIN = ["resolve", 1, {"subject": "admin", "scopes": [["admin"]]}]


def post(server: RunningServer, body: str | bytes = WHOAMI, **options: Any) -> httpx.Response:
    options.setdefault("headers", {"Authorization": f"Bearer {server.token}"})
    path = options.pop("path", "/rpc")
    return httpx.post(f"{server.url}{path}", content=body, timeout=200, **options)


def messages(response: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in response.text.split("\n")]


@pytest.mark.parametrize("path", ["/rpc", "/rpc/share"])
def test_both_endpoints_answer_a_batch(server: RunningServer, path: str) -> None:
    response = post(server, path=path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert messages(response) == [ADMIN]


def test_a_share_is_made_and_filled_in_one_request(server: RunningServer) -> None:
    data = [[{"type": "message", "data": {"id": "msg_1"}}]]
    batch = [
        ["push", ["pipeline", 0, ["createShare"], ["ses_raw_http_batch_1"]]],
        [
            "push",
            ["pipeline", 0, ["syncShare"], [["pipeline", 1, ["id"]], ["pipeline", 1, ["secret"]], data]],
        ],
        ["pull", 2],
    ]
    response = post(server, "\n".join(json.dumps(message) for message in batch))
    assert messages(response) == [["resolve", 2, {"success": True, "syncCount": 1}]]


def test_an_empty_batch_is_answered_with_nothing(server: RunningServer) -> None:
    response = post(server, "")
    assert (response.status_code, response.text) == (200, "")


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"x-opencode-share-key": "wrong"}]
)
def test_no_credential_or_a_bad_one_is_refused_with_401(
    server: RunningServer, headers: dict[str, str]
) -> None:
    response = post(server, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["code"] == "UNAUTHORIZED"


def test_the_path_may_hold_the_credential(server: RunningServer) -> None:
    assert messages(post(server, path=f"/k/{server.token}/rpc", headers={})) == [ADMIN]


def test_a_page_of_another_origin_is_refused_with_403(server: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {server.token}", "Origin": "https://evil.example"}
    assert post(server, headers=headers).status_code == 403
    headers["Origin"] = server.url
    assert post(server, headers=headers).status_code == 200


def test_other_methods_are_refused(server: RunningServer) -> None:
    response = httpx.put(f"{server.url}/rpc")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/rpc", "/rpc/share", "/k/KEY/rpc/share"])
def test_who_looks_at_its_address_is_told_what_is_there(server: RunningServer, path: str) -> None:
    response = httpx.get(server.url + path)
    assert response.status_code == 426
    assert response.headers["upgrade"] == "websocket"
    assert response.json() == {
        "error": "This is the address of a WebSocket, and of batches, which are sent with POST",
        "code": "UPGRADE_REQUIRED",
    }


def test_a_broken_rule_is_told_in_the_answer(server: RunningServer) -> None:
    response = post(server, '["nonsense"]')
    assert response.status_code == 200
    assert messages(response) == [
        ["abort", ["error", "Error", "bad RPC message: malformed, or of an unknown kind"]]
    ]


def test_a_call_that_would_wait_for_the_client_fails_at_once(server: RunningServer) -> None:
    response = post(server, '["push",["pipeline",0,["probeCallback"],[["export",-1]]]]\n["pull",1]')
    assert response.elapsed.total_seconds() < 5
    reason = "the peer has sent its whole batch, and cannot be asked"
    assert messages(response)[-1] == ["reject", 1, ["error", "Error", reason]]


def test_a_subscription_cannot_outlive_its_batch(server: RunningServer) -> None:
    batch = [
        ["push", ["pipeline", 0, ["createShare"], ["ses_raw_http_batch_2"]]],
        ["push", ["pipeline", 0, ["subscribe"], [["pipeline", 1, ["id"]], ["export", -1]]]],
        ["pull", 2],
    ]
    response = post(server, "\n".join(json.dumps(message) for message in batch))
    assert response.elapsed.total_seconds() < 5
    assert [message[0] for message in messages(response)].count("resolve") == 1


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that takes short messages only."""
    data_dir = tmp_path_factory.mktemp("narrow") / "data"
    with RunningServer(data_dir, "--max-message-size=10000") as server:
        yield server


class TestLimits:
    def test_a_message_past_the_limit_ends_the_batch(self, narrow: RunningServer) -> None:
        response = post(narrow, json.dumps(["push", "x" * 10_000]))
        assert "limit exceeded: message bytes (at most 10,000)" in response.text

    def test_a_batch_may_be_longer_than_a_message(self, narrow: RunningServer) -> None:
        batch = [json.dumps(["push", "x" * 9_000])] * 4 + ['["pull",4]']
        assert messages(post(narrow, "\n".join(batch))) == [["resolve", 4, "x" * 9_000]]

    def test_a_batch_of_more_than_four_such_messages_is_refused_with_413(self, narrow: RunningServer) -> None:
        response = post(narrow, b"\n" * 40_001)
        assert response.status_code == 413
        assert response.json() == {
            "error": "the body is larger than 40,000 bytes",
            "code": "PAYLOAD_TOO_LARGE",
        }

    def test_so_is_one_whose_length_is_not_known_before(self, narrow: RunningServer) -> None:
        response = httpx.post(
            f"{narrow.url}/rpc",
            content=(b"\n" * 10_000 for _ in range(5)),
            headers={"Authorization": f"Bearer {narrow.token}"},
        )
        assert response.status_code == 413


def test_anonymous_callers_are_let_in_where_they_may_create(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", "--anonymous-create") as server:
        assert messages(post(server, headers={})) == [["resolve", 1, {"subject": None, "scopes": [[]]}]]


def test_a_stopping_server_answers_the_batch_that_it_has_begun(tmp_path: Path) -> None:
    item = {"type": "message", "data": {"id": "msg_1", "text": "x"}}
    create = ["push", ["pipeline", 0, ["createShare"], ["ses_stopping_batch_1"]]]
    sync = ["push", ["pipeline", 0, ["syncShare"], [["pipeline", 1, ["id"]], None, [[item]]]]]
    batch = [create, *[sync] * 300, *(["pull", n + 2] for n in range(300))]
    with RunningServer(tmp_path / "data") as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=200)
        connection.request("GET", "/healthz")
        connection.getresponse().read()  # so that the server has taken the connection
        headers = {"Authorization": f"Bearer {server.token}"}
        connection.request("POST", "/rpc", "\n".join(json.dumps(message) for message in batch), headers)
        assert server.stop() == 0
        answer = connection.getresponse().read().split(b"\n")
        connection.close()
    assert [json.loads(line)[:2] for line in answer] == [["resolve", n + 2] for n in range(300)]


async def test_what_is_left_of_a_batch_is_not_answered_once_its_client_has_gone() -> None:
    size, count = 200_000, 300
    service = ShareService(
        MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), "http://share.example")
    )
    text = {"type": "part", "data": {"id": "prt_1", "text": "x" * size}}
    share = await service.create(ADMIN_CALLER, "ses_gone_batch_01", [text])
    settings = Settings(anonymous_create=True)
    app, connections = create_app(settings, service, Authenticator([]), "http://share.example")
    get = ["push", ["pipeline", 0, ["getShare"], [share.id]]]
    lines = [json.dumps(message) for n in range(count) for message in (get, ["pull", n + 1])]
    arriving: list[Message] = [{"type": "http.request", "body": "\n".join(lines).encode()}]
    gone = asyncio.Event()
    sent = 0

    async def receive() -> Message:
        if arriving:
            return arriving.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        # As uvicorn does: what is sent to a client that has gone is dropped.
        nonlocal sent
        if message["type"] == "http.response.body":
            sent += len(message["body"])
            gone.set()
            await asyncio.sleep(0)

    await app(http_scope("POST", "/rpc"), receive, send)
    await connections.close()
    await service.close()
    assert 0 < sent < size * count / 4
