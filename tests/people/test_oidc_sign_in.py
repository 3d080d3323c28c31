"""Signing in by OpenID Connect with a certified provider, and with what it says bent on its way."""

import re
import shutil
import time
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
    text = table(peer, role_map='{ admins = "admin" }', organization='"acme"')
    with RunningServer(folder / "data", configured(folder, text)) as server:
        yield server


@pytest.fixture(autouse=True)
def _unbent(peer: OidcPeer, server: RunningServer) -> Iterator[None]:
    peer.knows(server)
    yield
    close_browsers()


def whoami(client: httpx.Client, server: RunningServer) -> httpx.Response:
    lines = '["push",["pipeline",0,["whoami"],[]]]\n["pull",1]'
    return client.post("/rpc", content=lines, headers={"Origin": server.url})


def answer_of_provider(client: httpx.Client, **changed: str) -> str:
    """Return the address at which the provider sends the browser back, without going there."""
    answer = client.get("/auth/acme/login", follow_redirects=False)
    url = httpx.URL(answer.headers["location"])
    url = url.copy_merge_params(changed)
    while True:
        answer = client.get(url, follow_redirects=False)
        url = answer.url.join(answer.headers["location"])
        if url.port == client.base_url.port:
            return str(url)


def test_who_signs_in_becomes_a_user(server, peer):
    client = signed_in(server, peer, "alice")
    answer = whoami(client, server)
    assert '"email":"alice@acme.example"' in answer.text
    assert '"organization":"acme","role":"admin"' in answer.text
    assert '"scopes":[["create","read"]]' in answer.text
    assert "Alice Example" in told(client.get("/profile"))


def test_what_leads_to_the_provider_has_pkce_state_and_nonce_and_no_secret(server):
    answer = browser(server).get("/auth/acme/login", follow_redirects=False)
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query["response_type"] == ["code"]
    assert query["code_challenge_method"] == ["S256"]
    assert len(query["code_challenge"][0]) == 43
    assert min(len(query[name][0]) for name in ("state", "nonce")) >= 43
    assert query["redirect_uri"] == [f"{server.url}/auth/acme/callback"]
    assert "secret" not in answer.headers["location"]
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


REFUSED = {
    "issuer": "an identity token of another issuer",
    "audience": "an identity token for another client",
    "audience list": "an identity token for another client",
    "azp": "an identity token for another client",
    "party that is a list": "an identity token for another client",
    "nonce": "an identity token for another sign-in",
    "no nonce": "an identity token for another sign-in",
    "expired": "an identity token that has expired",
    "future": "an identity token that is not valid yet",
    "no expiry": "an identity token that cannot be used",
    "at_hash": "an identity token of another access token",
    "no subject": "an identity token without a subject",
    "alg none": "an identity token that is malformed, or not signed",
    "HS256 by the public key": "an identity token that is not signed by its keys",
    "HS256 by the client secret": "an identity token that is not signed by its keys",
    "key of its own in the header": "an identity token that is not signed by its keys",
    "another key": "an identity token that is not signed by its keys",
    "altered": "an identity token that is not signed by its keys",
    "other userinfo": "what it knows of another user",
}


@pytest.mark.parametrize("mode", REFUSED)
def test_what_is_not_the_providers_is_refused_with_a_sentence(server, peer, mode):
    peer.tell(mode=mode, account="bob")
    client = browser(server)
    answer = client.get("/auth/acme/login")
    assert answer.status_code == 403
    assert f"acme sent {REFUSED[mode]}. Nobody was signed in." in told(answer)
    assert "rpcshare_session" not in client.cookies
    assert whoami(client, server).status_code == 401


@pytest.mark.parametrize(
    "mode", ["skewed", "audience of one in a list", "several audiences, ours the party", "in token"]
)
def test_what_the_specification_lets_a_provider_do_is_taken(server, peer, mode):
    peer.tell(mode=mode)
    assert whoami(signed_in(server, peer, "bob"), server).status_code == 200


def test_the_answer_to_another_browser_is_refused(server, peer):
    peer.tell(account="bob")
    address = answer_of_provider(browser(server))
    other = browser(server)
    answer = other.get(address)
    assert answer.status_code == 403
    assert "This browser has not begun to sign in here" in told(answer)
    assert "rpcshare_session" not in other.cookies


@pytest.mark.parametrize("change", ["state", "iss"])
def test_an_answer_with_another_state_or_issuer_is_refused(server, peer, change):
    peer.tell(account="bob")
    client = browser(server)
    address = httpx.URL(answer_of_provider(client)).copy_merge_params({change: "https://other.example"})
    answer = client.get(address)
    assert answer.status_code == 403
    assert "rpcshare_session" not in client.cookies


def test_a_provider_that_names_itself_in_answers_has_to_do_so(server, peer):
    peer.tell(account="bob")
    client = browser(server)
    answer = client.get(httpx.URL(answer_of_provider(client)).copy_remove_param("iss"))
    assert "an answer that is another provider's" in told(answer)


def test_a_code_that_was_used_is_refused(server, peer):
    peer.tell(account="bob")
    client = browser(server)
    address = answer_of_provider(client)
    cookies = {each.name: each.value or "" for each in client.cookies.jar if "rpcshare" in each.name}
    assert client.get(address).status_code == 200
    again = browser(server, **cookies).get(address)
    assert again.status_code == 403
    assert "it is used, or too old" in told(again)


def test_a_code_that_has_expired_is_refused(server, peer):
    peer.tell(account="bob", codeTTL=1)
    client = browser(server)
    address = answer_of_provider(client)
    time.sleep(2.1)
    assert "it is used, or too old" in told(client.get(address))


def test_a_code_of_another_challenge_is_refused(server, peer):
    peer.tell(account="bob")
    client = browser(server)
    address = answer_of_provider(client, code_challenge="A" * 43)
    assert "it is used, or too old" in told(client.get(address))


def test_keys_that_have_changed_are_taken_at_once(server, peer):
    signed_in(server, peer, "bob")
    peer.tell(rotate=True)
    time.sleep(1.1)  # the least time between two fetches of keys
    assert whoami(signed_in(server, peer, "bob"), server).status_code == 200


def test_a_provider_that_hangs_blocks_nobody_and_is_given_up(server, peer):
    peer.tell(mode="hang", account="bob")
    client = browser(server)
    address = answer_of_provider(client)
    began = time.monotonic()
    answer = client.get(address)
    assert time.monotonic() - began < 60
    assert answer.status_code == 502
    assert "acme cannot be reached at the moment" in told(answer)
    assert browser(server).get("/healthz").status_code == 200


def test_who_does_not_sign_in_at_the_provider_is_told_so(server, peer):
    peer.tell(account="nobody")
    answer = browser(server).get("/auth/acme/login")
    assert "You have not signed in at acme" in told(answer)
    assert "<b>no</b>" not in answer.text


@pytest.mark.parametrize(
    "address", ["https://evil.example", "//evil.example", "/\\evil.example", "share/../../x", "javascript:1"]
)
def test_no_address_of_another_site_is_gone_to_in_the_end(server, peer, address):
    peer.tell(account="bob")
    client = browser(server)
    answer = client.get("/auth/acme/login", params={"next": address})
    assert str(answer.url) == f"{server.url}/sessions"


def test_a_share_that_was_asked_for_is_gone_to_in_the_end(server, peer):
    peer.tell(account="bob")
    answer = browser(server).get("/auth/acme/login", params={"next": "share/abc12345"})
    assert str(answer.url) == f"{server.url}/share/abc12345"


def test_a_session_that_the_browser_had_before_is_none_after_signing_in(server, peer):
    client = signed_in(server, peer, "bob")
    before = client.cookies["rpcshare_session"]
    client.get("/auth/acme/login")
    assert client.cookies["rpcshare_session"] != before
    old = browser(server, rpcshare_session=before)

    def is_ended() -> bool:
        return whoami(old, server).status_code == 401

    until(is_ended)


def test_signing_out_ends_the_session_itself(server, peer):
    client = signed_in(server, peer, "bob")
    kept = client.cookies["rpcshare_session"]
    assert client.post("/auth/logout", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post("/auth/logout", headers={"Origin": server.url}).url.path == "/signed-out"
    assert "rpcshare_session" not in client.cookies
    old = browser(server, rpcshare_session=kept)
    until(lambda: whoami(old, server).status_code == 401)


def test_a_user_ends_sessions_on_the_profile_page(server, peer):
    one, other = signed_in(server, peer, "bob"), signed_in(server, peer, "bob")
    assert one.get("/profile").text.count('name="session"') >= 2
    answer = one.post("/profile/sessions/end", data={"session": ""}, headers={"Origin": server.url})
    assert answer.status_code in (200, 401)
    until(lambda: whoami(other, server).status_code == 401)


def test_an_admin_gives_roles_and_disables_members(server, peer):
    bob, alice = signed_in(server, peer, "bob"), signed_in(server, peer, "alice")
    page = alice.get("/organization").text
    user = re.search(r'users/(usr_\w+)"[^>]*><label[^>]*>Role of Bob', page)
    assert user is not None
    change = f"/organization/users/{user[1]}"
    mine = {"Origin": server.url}
    assert bob.post(change, data={"role": "admin"}, headers=mine).status_code == 403
    assert alice.post(change, data={"role": "server-admin"}, headers=mine).status_code == 403
    assert alice.post(change, data={"role": "viewer"}, headers=mine).status_code == 200
    until(lambda: '"role":"viewer"' in whoami(bob, server).text)
    assert alice.post(change, data={"do": "disable"}, headers=mine).status_code == 200
    until(lambda: whoami(bob, server).status_code == 401)
    peer.tell(account="bob")
    assert "This account is disabled" in told(browser(server).get("/auth/acme/login"))
    assert alice.post(change, data={"do": "enable"}, headers=mine).status_code == 200


def test_no_secret_of_a_sign_in_is_in_the_log(server, peer):
    client = browser(server)
    peer.tell(account="carol")
    address = answer_of_provider(client)
    client.get(address)
    log = Path(server.log).read_text()
    query = parse_qs(urlsplit(address).query)
    for secret in (query["code"][0], query["state"][0], client.cookies["rpcshare_session"], "a secret of"):
        assert secret not in log


@pytest.mark.parametrize(
    ("settings", "account", "sentence"),
    [
        ({"allowed_domains": '["acme.example"]'}, "bob", ""),
        ({"allowed_domains": '["acme.example"]'}, "carol", "belongs to no organization that may sign in"),
        ({"allowed_domains": '["acme.example"]'}, "dave", "has no address that it has verified"),
        ({"allowed_groups": '["admins"]'}, "alice", ""),
        ({"allowed_groups": '["admins"]'}, "bob", "is in no group that may sign in here"),
    ],
)
def test_only_those_whom_the_settings_name_are_let_in(peer, tmp_path, settings, account, sentence):
    with RunningServer(tmp_path / "data", configured(tmp_path, table(peer, **settings))) as server:
        peer.knows(server)
        peer.tell(account=account)
        answer = browser(server).get("/auth/acme/login")
        assert (answer.status_code == 200) == (not sentence)
        assert sentence in told(answer)


def test_an_issuer_that_calls_itself_otherwise_is_refused(peer, tmp_path):
    text = table(peer).replace(peer.issuer, f"{peer.issuer}/")
    with RunningServer(tmp_path / "data", configured(tmp_path, text)) as server:
        peer.knows(server)
        answer = browser(server).get("/auth/acme/login")
        assert answer.status_code == 502
        assert f"write the issuer as '{peer.issuer}'" in server.log.read_text()
