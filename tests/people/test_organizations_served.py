"""Limits and the audit of an organization of a server that runs, at every entry point and on its pages."""

import json
import shutil
from collections.abc import Iterator

import httpx
import pytest

from people.oidc_peer import NODE, OidcPeer, close_browsers, configured, signed_in, table, told, until
from rpcshare import connect_blocking
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
    limits = ("--max-user-shares=3", "--max-user-storage=20kB", "--max-organization-storage=1GB")
    with RunningServer(folder / "data", configured(folder, text), *limits) as server:
        peer.knows(server)
        yield server


@pytest.fixture(scope="module")
def alice(server: RunningServer, peer: OidcPeer) -> Iterator[httpx.Client]:
    """An admin of the organization, in a browser."""
    yield signed_in(server, peer, "alice")
    close_browsers()


@pytest.fixture(scope="module")
def bob(server: RunningServer, peer: OidcPeer, alice: httpx.Client) -> httpx.Client:
    """A member, in another."""
    return signed_in(server, peer, "bob")


_clients: list[httpx.Client] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _clients:
        _clients.pop().close()


def machine(server: RunningServer, path: str = "", **headers: str) -> httpx.Client:
    """Return what asks a server with some credential."""
    made = httpx.Client(base_url=server.url + path, headers=headers, timeout=30)
    _clients.append(made)
    return made


def call(client: httpx.Client, *path: object) -> object:
    """Call methods of each other's results over an HTTP batch; return what the last does."""
    lines, calls = [], 0
    for each in path:
        method, *arguments = each if isinstance(each, tuple) else (each,)
        lines.append(json.dumps(["push", ["pipeline", calls, [method], list(arguments)]]))
        calls += 1
    lines.append(json.dumps(["pull", calls]))
    answer = client.post(
        "/rpc", content="\n".join(lines), headers={"Origin": str(client.base_url).rstrip("/")}
    )
    if answer.status_code != 200:
        return answer.json()["code"]
    for line in map(json.loads, answer.text.splitlines()):
        if line[:2] == ["resolve", calls]:
            return line[2]
        if line[:2] == ["reject", calls]:
            return line[2][4]["code"]
    raise AssertionError(answer.text)


def key_of(client: httpx.Client, **options: object) -> str:
    made = call(client, "keys", ("create", "laptop", options))
    assert isinstance(made, dict), made
    return str(made["key"])


def bob_id(alice: httpx.Client) -> str:
    found = call(alice, "users", ("list", {"query": "bob"}))
    assert isinstance(found, dict)
    return str(found["users"][0][0]["id"])


def text(size: int, part: str) -> list[dict[str, object]]:
    return [{"type": "part", "data": {"id": part, "messageID": "msg_1", "type": "text", "text": "x" * size}}]


def test_limits_hold_on_every_entry_and_are_shown(
    server: RunningServer, alice: httpx.Client, bob: httpx.Client
) -> None:
    key = key_of(bob)
    by_path = machine(server, f"/k/{key}")
    made = by_path.post("/api/share", json={"sessionID": "ses_by_path"}).json()
    by_header = machine(server, Authorization=f"ApiKey {key}")
    assert by_header.post("/api/share", json={"sessionID": "ses_by_header"}).status_code == 200
    with connect_blocking(server.url, token=key) as api:
        api.createShare("ses_by_rpc")
    for answer in (
        by_path.post("/api/share", json={"sessionID": "ses_more_1"}),
        by_header.post("/api/shares", json={"sessionID": "ses_more_2"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
        assert "at most 3 shares" in answer.json()["error"]
    assert call(by_header, ("createShare", "ses_more_3")) == "FORBIDDEN"

    sync = {"secret": made["secret"], "data": text(15_000, "prt_1")}
    assert by_path.post(f"/api/share/{made['id']}/sync", json=sync).status_code == 200
    more = {"secret": made["secret"], "data": text(15_000, "prt_2")}
    for client in (by_path, by_header, machine(server)):
        answer = client.post(f"/api/share/{made['id']}/sync", json=more)
        assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert "20,000 bytes" in answer.json()["error"]
    assert call(by_header, ("syncShare", made["id"], None, [more["data"]])) == "PAYLOAD_TOO_LARGE"

    usage = call(by_header, "whoami")
    assert isinstance(usage, dict)
    own = usage["usage"]["user"]
    assert own["shares"] == {"used": 3, "limit": 3}
    assert 15_000 < own["storage"]["used"] < 20_000
    assert usage["usage"]["organization"]["storage"]["limit"] == 10**9
    assert "limit reached" in told(bob.get("/profile"))
    assert "20 kB" in told(bob.get("/profile"))
    assert "What all members use" in told(bob.get("/organization"))


def test_admins_choose_limits_each_within_the_own_right(
    server: RunningServer, alice: httpx.Client, bob: httpx.Client
) -> None:
    user = bob_id(alice)
    assert call(alice, "users", ("setLimits", user, {"shares": 4})) == "FORBIDDEN"
    assert call(alice, "users", ("setLimits", user, {"shares": 0})) == "FORBIDDEN"
    assert call(alice, "users", ("setOrganizationLimits", "acme", {"shares": 4})) == "FORBIDDEN"
    assert call(alice, "users", ("organizationLimits", "globex")) in ("FORBIDDEN", "INVALID_ARGUMENT")
    assert call(bob, "users", ("setLimits", user, {"shares": 2})) == "FORBIDDEN"
    me = call(alice, "whoami")
    assert isinstance(me, dict)
    assert call(alice, "users", ("setLimits", me["subject"], {"shares": 2})) == "INVALID_ARGUMENT"
    lowered = call(alice, "users", ("setLimits", user, {"shares": 2}))
    assert isinstance(lowered, dict)
    assert lowered["user"]["shares"]["limit"] == 2
    root = machine(server, Authorization=f"Bearer {server.token}")
    raised = call(root, "users", ("setLimits", user, {"shares": 10}))
    assert isinstance(raised, dict)
    assert raised["user"]["shares"]["limit"] == 10
    assert raised["user"]["storage"]["limit"] == 20_000  # what was not given stays
    assert call(root, "users", ("setOrganizationLimits", "nowhere", {"shares": 1})) == "INVALID_ARGUMENT"
    assert call(root, "users", ("setLimits", user, {"shares": -1})) == "INVALID_ARGUMENT"
    back = call(root, "users", ("setLimits", user, {"shares": None}))
    assert isinstance(back, dict)
    assert back["user"]["shares"]["limit"] == 3


def test_a_key_has_a_rate_at_every_entry(server: RunningServer, bob: httpx.Client) -> None:
    key = key_of(bob, rateLimit=6)
    by_header = {"Authorization": f"ApiKey {key}"}
    with connect_blocking(server.url, token=key) as api:  # one request, and a call each
        for _ in range(2):
            api.whoami()
        for url, headers in (
            (f"{server.url}/k/{key}/api/my-sessions", {}),
            (f"{server.url}/api/sessions", by_header),
        ):
            assert httpx.get(url, headers=headers).status_code == 200
        assert httpx.get(f"{server.url}/k/{key}/my-sessions").status_code == 200
        with pytest.raises(Exception, match="Too many requests of this API key: 6 a minute"):
            api.whoami()
    for url, headers in (
        (f"{server.url}/k/{key}/api/my-sessions", {}),
        (f"{server.url}/api/sessions", by_header),
        (f"{server.url}/k/{key}/my-sessions", {"Accept": "text/html"}),
    ):
        answer = httpx.get(url, headers=headers)
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 60
    # A page says what was too many, and until when, as the other answers do.
    assert "Too many requests of this API key: 6 a minute are allowed; try again in " in told(answer)
    batch = httpx.post(f"{server.url}/rpc", content='["push",1]', headers=by_header)
    assert (batch.status_code, batch.json()["code"]) == (429, "RATE_LIMITED")
    assert bob.get("/profile").status_code == 200  # the user goes on


def test_admins_of_the_organization_see_what_was_done_in_it(
    server: RunningServer, alice: httpx.Client, bob: httpx.Client
) -> None:
    user = bob_id(alice)
    root = machine(server, Authorization=f"Bearer {server.token}")
    call(root, "users", ("setLimits", user, {"shares": 3}))
    root.post("/api/share", json={"sessionID": "ses_of_root"})
    key = key_of(bob)
    found = call(alice, "users", ("audit", {"limit": 200}))
    assert isinstance(found, dict)
    events = found["events"][0]
    done = {(each["action"], each["subject"], each["outcome"]) for each in events}
    assert ("user.sign_in", user, "ok") in done
    assert ("key.create", user, "ok") in done
    assert ("user.limits", "an admin of the server", "ok") in done
    assert not any("ses_of_root" in json.dumps(each) for each in events)
    assert [each["id"] for each in events] == sorted((each["id"] for each in events), reverse=True)
    assert key not in json.dumps(found)
    assert key[len("rsk_") + 13 :] not in json.dumps(found)

    pages, cursor = [], None
    while True:
        page = call(alice, "users", ("audit", {"limit": 2, "cursor": cursor}))
        assert isinstance(page, dict)
        pages += [each["id"] for each in page["events"][0]]
        cursor = page["cursor"]
        if cursor is None or len(pages) > 500:
            break
    assert set(pages) >= {each["id"] for each in events}

    assert call(bob, "users", "audit") == "FORBIDDEN"
    assert call(alice, "users", ("audit", {"organization": "globex"})) == "FORBIDDEN"
    assert call(root, "users", "audit") == "INVALID_ARGUMENT"
    assert call(root, "users", ("audit", {"organization": "nowhere"})) == "INVALID_ARGUMENT"
    assert bob.get("/organization/audit").status_code == 403
    page_text = told(alice.get("/organization"))
    assert "API keys of members" in page_text
    assert "an admin of the server" in page_text
    assert "Bob Example" in page_text.partition("What was done")[2]
    assert "key.create" in told(alice.get("/organization/audit"))
    assert "What was done" not in told(bob.get("/organization"))
    assert "API keys of members" not in told(bob.get("/organization"))


def test_an_admin_of_an_organization_is_not_shown_another_one(
    server: RunningServer, alice: httpx.Client, bob: httpx.Client
) -> None:
    assert call(alice, "users", ("list", {"organization": "globex"})) == "FORBIDDEN"
    own = call(alice, "users", ("list", {"organization": "acme"}))
    assert isinstance(own, dict)
    assert {each["organization"] for each in own["users"][0]} == {"acme"}
    found = call(alice, "users", "organizations")
    assert isinstance(found, dict)
    assert [each["name"] for each in found["organizations"][0]] == ["acme"]


def test_a_member_who_is_disabled_is_refused_and_it_is_told(
    server: RunningServer, alice: httpx.Client, bob: httpx.Client
) -> None:
    user = bob_id(alice)
    call(alice, "users", ("disable", user))
    until(lambda: bob.get("/profile").status_code == 401)
    call(alice, "users", ("enable", user))
    found = call(alice, "users", ("audit", {"limit": 5}))
    assert isinstance(found, dict)
    newest = [(each["action"], each["details"].get("user")) for each in found["events"][0]]
    assert ("user.disable", user) in newest
    assert ("user.enable", user) in newest
