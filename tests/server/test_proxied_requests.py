"""A server behind a proxy that authenticates, asked by that proxy and by others."""

from collections.abc import Iterator
from ipaddress import ip_network

import httpx
import pytest
from starlette.requests import HTTPConnection

import rpcshare
from rpcshare.auth.request_head import RequestHead
from rpcshare.auth.trusted_proxies import TrustedProxies
from rpcshare.server.request import ProxyMiddleware, request_head
from running_server import RunningServer

PROXY, OTHER = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    options = [
        f"--trusted-proxy={PROXY}",
        "--trusted-proxy=10.0.0.0/8",
        "--proxy-subject-header=X-User",
        "--proxy-scope=create,read",
    ]
    with RunningServer(tmp_path_factory.mktemp("proxied") / "data", *options) as server:
        yield server


def asked_from(address: str, server: RunningServer, **headers: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.get(f"{server.url}/api/my-sessions", headers=named)


def test_a_proxy_s_word_is_who_is_asking(proxied: RunningServer) -> None:
    assert asked_from(PROXY, proxied, x_user="alice").status_code == 200


def test_the_word_of_anybody_else_is_not(proxied: RunningServer) -> None:
    answer = asked_from(OTHER, proxied, x_user="alice")
    assert answer.status_code == 401
    # Nor that of who says to be one.
    assert asked_from(OTHER, proxied, x_user="alice", x_forwarded_for=PROXY).status_code == 401


def test_a_proxy_that_names_nobody_asks_for_nobody(proxied: RunningServer) -> None:
    assert asked_from(PROXY, proxied).status_code == 401


def test_a_word_that_two_may_have_said_is_refused_with_the_reason(proxied: RunningServer) -> None:
    answer = asked_from(PROXY, proxied, x_user="mallory, alice")
    assert answer.status_code == 401
    assert answer.json()["error"] == "Unauthorized: the proxy's header x-user has more than one value"


def test_a_token_takes_the_place_of_the_proxy_s_word(proxied: RunningServer) -> None:
    with httpx.Client(headers={"X-User": "alice", "Authorization": f"Bearer {proxied.token}"}) as client:
        assert client.get(f"{proxied.url}/api/sessions").status_code == 200


async def test_a_proxy_s_word_is_who_is_asking_over_rpc(proxied: RunningServer) -> None:
    async with rpcshare.connect(proxied.url, headers={"X-User": "alice"}) as api:
        me = await api.whoami()
    assert (me["subject"], set(me["scopes"])) == ("alice", {"create", "read"})


def test_links_are_not_made_of_what_a_proxy_forwards(proxied: RunningServer) -> None:
    headers = {"X-User": "alice", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    answer = httpx.post(
        f"{proxied.url}/api/share", headers=headers, json={"sessionID": "ses_forwarded_host_1"}
    )
    assert answer.json()["url"].startswith(f"{proxied.url}/share/")


# --- addresses ----------------------------------------------------------------------------------


async def head_of(client: tuple[str, int] | None, *forwarded: bytes) -> RequestHead:
    """Return the head of a request that has passed the middleware."""
    heads = []

    async def app(scope, receive, send):
        heads.append(request_head(HTTPConnection(scope)))

    scope = {
        "type": "http",
        "path": "/",
        "client": client,
        "headers": [(b"x-forwarded-for", value) for value in forwarded],
        "extensions": {"tls": {"client_cert_chain": ()}},
    }
    await ProxyMiddleware(app, TrustedProxies([ip_network(PROXY), ip_network("10.0.0.0/8")]))(
        scope, None, None
    )
    return heads[0]


@pytest.mark.parametrize(
    ("client", "forwarded", "address", "is_from_proxy"),
    [
        ((PROXY, 1), [b"198.51.100.7"], "198.51.100.7", True),
        ((PROXY, 1), [b"1.1.1.1, 198.51.100.7", b"10.0.0.1"], "198.51.100.7", True),
        ((PROXY, 1), [], PROXY, True),
        ((OTHER, 1), [b"198.51.100.7"], OTHER, False),
        (None, [b"198.51.100.7"], "", False),
    ],
)
async def test_the_address_of_a_request_is_the_one_that_a_trusted_proxy_has_seen(
    client, forwarded, address, is_from_proxy
):
    head = await head_of(client, *forwarded)
    assert (head.address, head.is_from_proxy) == (address, is_from_proxy)
