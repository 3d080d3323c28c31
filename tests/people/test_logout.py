"""Signing out here and at the provider, and by the provider."""

import json
import shutil
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from people.oidc_peer import (
    NODE,
    OidcPeer,
    browser,
    close_browsers,
    configured,
    signed_in,
    table,
    told,
    until,
)
from support.running_server import RunningServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("node") is None or not (NODE / "node_modules" / "oidc-provider").is_dir(),
        reason="needs node, and tests/node/node_modules as `make test` installs them",
    ),
]


@pytest.fixture(scope="module")
def peer() -> Iterator[OidcPeer]:
    with OidcPeer() as peer:
        yield peer


@pytest.fixture(scope="module")
def server(peer: OidcPeer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    text = table(peer, label='"Acme ID"', organization='"acme"')
    with RunningServer(folder / "data", configured(folder, text)) as server:
        yield server


@pytest.fixture(autouse=True)
def _known(peer: OidcPeer, server: RunningServer) -> Iterator[None]:
    peer.knows(server)
    yield
    close_browsers()


def sign_out(client: httpx.Client, server: RunningServer) -> httpx.Response:
    return client.post("/auth/logout", headers={"Origin": server.url})


def test_who_signs_out_is_offered_to_do_so_at_the_provider(server: RunningServer, peer: OidcPeer) -> None:
    client = signed_in(server, peer, "alice")
    page = sign_out(client, server)
    assert page.url.path == "/signed-out"
    assert "Sign out of Acme ID, too" in told(page)
    assert client.get("/api/my-sessions").status_code == 401

    leaving = client.get("/auth/logout/provider", follow_redirects=False)
    address = urlsplit(leaving.headers["location"])
    query = parse_qs(address.query)
    assert f"{address.scheme}://{address.netloc}" == peer.issuer
    assert query["client_id"] == ["rpcshare"]
    assert query["post_logout_redirect_uri"] == [f"{server.url}/sign-in"]
    assert len(query["id_token_hint"][0].split(".")) == 3

    # The provider takes the hint and the address, asks, ends its session, and leads back.
    asked = client.get(leaving.headers["location"])
    assert asked.status_code == 200, asked.text
    form = dict(
        part.split('" value="')
        for part in asked.text.replace("/>", ">").split('name="')[1:]
        for part in [part.split('">')[0].split('"/')[0]]
        if '" value="' in part
    )
    back = client.post(f"{peer.issuer}/session/end/confirm", data={**form, "logout": "yes"})
    assert back.url == f"{server.url}/sign-in"
    peer.tell(account="")
    assert "Continue as" in client.get("/auth/acme/login").text  # it asks again who it is


def test_the_way_to_the_provider_is_taken_once(server: RunningServer, peer: OidcPeer) -> None:
    client = signed_in(server, peer, "alice")
    sign_out(client, server)
    client.get("/auth/logout/provider", follow_redirects=False)
    again = client.get("/auth/logout/provider", follow_redirects=False)
    assert again.headers["location"].endswith("/sign-in")
    assert "too" not in told(client.get("/signed-out")).split()


def test_what_tells_of_the_provider_is_kept_from_other_sites(server: RunningServer, peer: OidcPeer) -> None:
    peer.tell(account="alice")
    client = browser(server)
    client.follow_redirects = False
    answer = client.get("/auth/acme/login")
    while "rpcshare_signed_in_by" not in answer.headers.get("set-cookie", ""):
        answer = client.get(answer.url.join(answer.headers["location"]))
    cookie = next(
        each for each in answer.headers.get_list("set-cookie") if each.startswith("rpcshare_signed_in_by")
    )
    assert "SameSite=strict" in cookie
    assert "HttpOnly" in cookie
    assert len(cookie) < 4096
    assert "." not in cookie.partition("=")[2].partition(";")[0]  # sealed: no token can be read in it


def test_a_provider_without_such_an_address_is_not_offered(peer: OidcPeer, tmp_path: Path) -> None:
    peer.tell(mode="no logout")
    with RunningServer(tmp_path / "data", configured(tmp_path, table(peer))) as other:
        peer.knows(other)
        peer.tell(mode="no logout")
        client = signed_in(other, peer, "bob")
        page = sign_out(client, other)
        assert "You are signed out" in told(page)
        assert "too" not in told(page).split()
        close_browsers()


def test_a_table_may_leave_the_sessions_of_the_provider_alone(peer: OidcPeer, tmp_path: Path) -> None:
    with RunningServer(
        tmp_path / "data", configured(tmp_path, table(peer, provider_logout="false"))
    ) as other:
        peer.knows(other)
        client = signed_in(other, peer, "bob")
        assert "too" not in told(sign_out(client, other)).split()
        close_browsers()


def test_a_provider_that_is_gone_keeps_nobody_from_signing_out(tmp_path: Path) -> None:
    with (
        OidcPeer() as short_lived,
        RunningServer(tmp_path / "data", configured(tmp_path, table(short_lived))) as other,
    ):
        short_lived.knows(other)
        client = signed_in(other, short_lived, "bob")
        short_lived.__exit__(None, None, None)
        assert "You are signed out" in told(sign_out(client, other))
        assert client.get("/api/my-sessions").status_code == 401
        close_browsers()


def test_the_provider_ends_all_sessions_of_who_signs_out_there(server: RunningServer, peer: OidcPeer) -> None:
    url = server.url.replace("127.0.0.1", "rpcshare.test")
    peer.tell(logoutURI=f"{url}/auth/acme/backchannel-logout")
    other = signed_in(server, peer, "bob")
    # What it is told last makes it forget its sessions.
    here, elsewhere = signed_in(server, peer, "alice"), browser(server)
    assert elsewhere.get("/auth/acme/login").status_code == 200
    asked = here.get(f"{peer.issuer}/session/end")
    form = dict(
        part.split('" value="')
        for part in asked.text.replace("/>", ">").split('name="')[1:]
        for part in [part.split('">')[0].split('"/')[0]]
        if '" value="' in part
    )
    here.post(f"{peer.issuer}/session/end/confirm", data={**form, "logout": "yes"})
    for each in (here, elsewhere):
        until(lambda each=each: each.get("/api/my-sessions").status_code == 401)  # type: ignore[misc]
    assert other.get("/api/my-sessions").status_code == 200


def unsigned() -> str:
    parts = (
        {"alg": "none"},
        {"iss": "x", "aud": "rpcshare", "iat": int(time.time()), "sub": "alice"},
    )
    encode = [urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts]
    return ".".join([*encode, ""])


@pytest.mark.parametrize("token", ["", "x", "a.b.c", unsigned(), "x" * 20_000], ids=range(5))
def test_nobody_but_the_provider_ends_sessions(server: RunningServer, peer: OidcPeer, token: str) -> None:
    client = signed_in(server, peer, "alice")
    answer = httpx.post(f"{server.url}/auth/acme/backchannel-logout", data={"logout_token": token})
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"
    assert client.get("/api/my-sessions").status_code == 200


def test_an_identity_token_ends_no_session(server: RunningServer, peer: OidcPeer) -> None:
    client = signed_in(server, peer, "alice")
    sign_out(client, server)
    leaving = client.get("/auth/logout/provider", follow_redirects=False).headers["location"]
    identity = parse_qs(urlsplit(leaving).query)["id_token_hint"][0]
    again = signed_in(server, peer, "alice")
    answer = httpx.post(f"{server.url}/auth/acme/backchannel-logout", data={"logout_token": identity})
    assert (answer.status_code, "no logout token" in answer.text) == (400, True)
    assert again.get("/api/my-sessions").status_code == 200


@pytest.mark.parametrize("path", ["/auth/nobody/backchannel-logout", "/auth/acme/backchannel-logout"])
def test_what_is_no_form_is_refused(server: RunningServer, path: str) -> None:
    answer = httpx.post(server.url + path, json={"logout_token": "x"})
    assert answer.status_code in (400, 404)


def test_very_many_groups_fit_into_no_cookie_and_keep_nobody_out(
    server: RunningServer, peer: OidcPeer
) -> None:
    """Browsers take no cookie of more than 4,096 bytes, and tell nobody."""
    peer.tell(
        mode="in token", claims={"groups": [f"a-group-with-a-long-name-{number}" for number in range(400)]}
    )
    client = signed_in(server, peer, "bob")
    assert client.get("/api/my-sessions").status_code == 200
    assert max(len(f"{each.name}={each.value}") for each in client.cookies.jar) < 3800
    assert "Sign out of Acme ID, too" in told(sign_out(client, server))
    leaving = client.get("/auth/logout/provider", follow_redirects=False).headers["location"]
    query = parse_qs(urlsplit(leaving).query)
    assert "id_token_hint" not in query  # which did not fit: the provider asks which session is meant
    assert query["client_id"] == ["rpcshare"]
    assert client.get(leaving).status_code == 200
