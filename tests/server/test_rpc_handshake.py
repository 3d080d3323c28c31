"""What a WebSocket handshake is answered, before any upgrade."""

import base64
from collections.abc import Sequence

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from support.running_server import RunningServer


def in_subprotocol(token: str) -> str:
    return "bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def refusal(
    server: RunningServer,
    *,
    path: str = "/rpc",
    headers: dict[str, str] | None = None,
    origin: str | None = None,
    subprotocols: Sequence[str] | None = None,
) -> tuple[int, dict[str, str]]:
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(
            server.url.replace("http", "ws") + path,
            additional_headers=headers,
            origin=Origin(origin) if origin else None,
            subprotocols=[Subprotocol(name) for name in subprotocols] if subprotocols else None,
            proxy=None,
        ),
    ):
        pass
    return refused.value.response.status_code, dict(refused.value.response.headers)


@pytest.mark.parametrize("path", ["/rpc", "/rpc/share"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_bearer_token_opens_both_endpoints(server: RunningServer, path: str, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {server.token}"}
    with connect(server.url.replace("http", "ws") + path, additional_headers=headers, proxy=None) as socket:
        socket.send('["push",["pipeline",0,["whoami"],[]]]')
        socket.send('["pull",1]')
        assert "admin" in str(socket.recv())


def test_the_share_key_header_of_forks_is_a_credential(server: RunningServer) -> None:
    headers = {"x-opencode-share-key": server.token}
    url = server.url.replace("http", "ws") + "/rpc/share"
    with connect(url, additional_headers=headers, proxy=None):
        pass


def test_a_key_in_the_path_is_a_credential(server: RunningServer) -> None:
    with connect(server.url.replace("http", "ws") + f"/k/{server.token}/rpc", proxy=None):
        pass


def test_a_browser_shows_its_token_as_a_subprotocol_that_is_not_echoed(server: RunningServer) -> None:
    offered = [Subprotocol("rpcshare.json"), Subprotocol(in_subprotocol(server.token))]
    with connect(
        server.url.replace("http", "ws") + "/rpc",
        subprotocols=offered,
        origin=Origin(server.url),
        proxy=None,
    ) as socket:
        assert socket.subprotocol == "rpcshare.json"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer "},
        {"x-opencode-share-key": "wrong"},
        {"Authorization": "ApiKey rsk_unknown"},
    ],
)
def test_no_credential_or_a_bad_one_is_refused_with_401(
    server: RunningServer, headers: dict[str, str]
) -> None:
    status, answered = refusal(server, headers=headers)
    assert status == 401
    assert answered["www-authenticate"] == "Bearer"


def test_a_bad_token_in_a_subprotocol_is_refused_with_401(server: RunningServer) -> None:
    status, _ = refusal(server, subprotocols=["rpcshare.json", in_subprotocol("wrong")])
    assert status == 401


def test_a_credential_in_the_query_is_never_read(server: RunningServer) -> None:
    status, _ = refusal(server, path=f"/rpc?token={server.token}&access_token={server.token}")
    assert status == 401


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_is_refused_with_403(server: RunningServer, origin: str) -> None:
    status, _ = refusal(server, headers={"Authorization": f"Bearer {server.token}"}, origin=origin)
    assert status == 403


def test_a_path_that_is_no_endpoint_is_refused(server: RunningServer) -> None:
    status, _ = refusal(server, path="/rpc/other", headers={"Authorization": f"Bearer {server.token}"})
    assert status in (403, 404)
