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
from support.running_server import RunningServer

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
        scope,
        None,  # type: ignore[arg-type]  # nobody receives
        None,  # type: ignore[arg-type]  # nor sends
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


# --- networks with more than proxies in them --------------------------------------------------------

SECRET = "what-only-the-proxy-knows"


@pytest.fixture(scope="module")
def in_wide_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    options = ["--trusted-proxy=127.0.0.0/8", "--proxy-subject-header=X-User"]
    limit = {"RPCSHARE_MAX_FAILED_AUTHENTICATIONS": "5"}
    with RunningServer(tmp_path_factory.mktemp("wide") / "data", *options, env=limit) as server:
        yield server


@pytest.fixture(scope="module")
def with_secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = tmp_path_factory.mktemp("secret")
    (path / "secret").write_text(SECRET + "\n")
    options = [
        "--trusted-proxy=127.0.0.0/8",
        "--proxy-subject-header=X-User",
        f"--proxy-secret-file={path / 'secret'}",
        "--log-level=debug",
    ]
    with RunningServer(path / "data", *options) as server:
        yield server


@pytest.mark.parametrize(
    "seen",
    ["127.0.0.77", "127.9.9.9", "203.0.113.7", "127.0.0.78:4711"],
    ids=["inside", "elsewhere inside", "outside", "with a port"],
)
def test_guesses_count_for_the_address_that_the_proxy_saw_whatever_is_left_of_it(
    in_wide_network: RunningServer, seen: str
) -> None:
    with httpx.Client(base_url=in_wide_network.url) as client:
        answers = [
            client.get(
                "/api/my-sessions",
                headers={
                    "Authorization": f"Bearer wrong{n}",
                    "X-Forwarded-For": f"6.6.6.{n}, 127.0.0.5{n}, {seen}",
                },
            ).status_code
            for n in range(10)
        ]
    assert answers == [401] * 5 + [429] * 5


def test_a_wide_network_is_warned_of_at_the_start(in_wide_network: RunningServer) -> None:
    assert "127.0.0.0/8" in in_wide_network.log.read_text()


@pytest.mark.parametrize(
    ("shown", "status"),
    [({"X-Proxy-Secret": SECRET}, 200), ({}, 401), ({"X-Proxy-Secret": SECRET.upper()}, 401)],
)
def test_who_cannot_show_the_secret_is_no_proxy(
    with_secret: RunningServer, shown: dict[str, str], status: int
) -> None:
    headers = {"X-User": "alice", **shown}
    assert httpx.get(f"{with_secret.url}/api/my-sessions", headers=headers).status_code == status


def test_a_client_s_guess_beside_the_proxy_s_secret_proves_nothing(with_secret: RunningServer) -> None:
    headers = [("X-User", "alice"), ("X-Proxy-Secret", "a guess of a client"), ("X-Proxy-Secret", SECRET)]
    assert httpx.get(f"{with_secret.url}/api/my-sessions", headers=headers).status_code == 401


def test_the_log_says_that_the_secret_was_missing_and_never_what_it_is(with_secret: RunningServer) -> None:
    httpx.get(f"{with_secret.url}/api/my-sessions", headers={"X-User": "alice"})
    httpx.get(f"{with_secret.url}/api/my-sessions", headers={"X-Proxy-Secret": SECRET})
    log = with_secret.log.read_text()
    assert "without the right secret" in log
    assert "have them show a secret" not in log
    assert SECRET not in log
