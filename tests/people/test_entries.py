"""Organizations at every entry of a server: HTTP, RPC, events, pages and commands, by cookies and by keys."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from people.signing import who
from rpcshare.auth.caller import Role
from rpcshare.auth.cookies import SessionSeal
from rpcshare.auth.people import People
from rpcshare.client import ShareClient
from rpcshare.database import parse_location
from rpcshare.database.engine import Database
from rpcshare.database.schema_version import RECORDS
from rpcshare.rpc import RpcError
from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow

TABLE = '[oidc.acme]\nissuer = "https://id.acme.example"\nclient_id = "x"\nclient_secret = "y"\n'
WORDS = "only the members of acme say elderberry"
PEOPLE = {
    "alice": ("acme", Role.MEMBER),
    "bob": ("acme", Role.MEMBER),
    "viewer": ("acme", Role.VIEWER),
    "boss": ("acme", Role.ADMIN),
    "mallory": ("globex", Role.ADMIN),
    "root": ("globex", Role.SERVER_ADMIN),
}


class Org:
    """A server with users of two organizations, who are signed in."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.ids: dict[str, str] = {}
        self.cookies: dict[str, str] = {}
        asyncio.run(self._sign_in())
        self.browsers = {name: self._browser(cookie) for name, cookie in self.cookies.items()}

    async def _sign_in(self) -> None:
        url = f"sqlite:///{self.server.data_dir}/records.sqlite3"
        database = await Database.open(parse_location(url), schema=RECORDS)
        people = People(database)
        seal = SessionSeal(UUID((self.server.data_dir / "shared-secret").read_text().strip()))
        for name, (organization, role) in PEOPLE.items():
            email = f"{name}@{organization}.example"
            said = who(subject=name, organization=organization, role=role, email=email, name=name.title())
            user = await people.sign_in(said)
            secret = await people.begin_session(user, "acme", "127.0.0.1", "Mozilla/5.0 Firefox/140.0")
            self.ids[name], self.cookies[name] = user.id, seal.seal(secret)
        await database.close()

    def _browser(self, cookie: str) -> httpx.Client:
        headers = {"Origin": self.server.url, "Cookie": f"rpcshare_session={cookie}"}
        return httpx.Client(base_url=self.server.url, headers=headers, timeout=60)

    def create(self, name: str, session_id: str, visibility: str) -> dict[str, str]:
        body = {"sessionID": session_id, "visibility": visibility}
        answer = self.browsers[name].post("/api/share", json=body)
        assert answer.status_code == 200, answer.text
        made: dict[str, str] = answer.json()
        part = {"type": "part", "data": {"id": "prt_1", "type": "text", "text": WORDS}}
        sent = {"secret": made["secret"], "data": [part]}
        assert self.browsers[name].post(f"/api/share/{made['id']}/sync", json=sent).status_code == 200
        return made

    def key_of(self, name: str, *scopes: str) -> str:
        lines = [
            '["push",["pipeline",0,["keys"],[]]]',
            json.dumps(["push", ["pipeline", 1, ["create"], ["mine", {"scopes": [list(scopes)]}]]]),
            '["pull",2]',
        ]
        answer = self.browsers[name].post("/rpc", content="\n".join(lines))
        found = re.search(r"rsk_\w+", answer.text)
        assert found is not None, answer.text
        return found[0]


@pytest.fixture(scope="module")
def org(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Org]:
    folder = tmp_path_factory.mktemp("org")
    (folder / "rpcshare.toml").write_text(TABLE)
    with RunningServer(folder / "data", f"--config={folder / 'rpcshare.toml'}") as server:
        org = Org(server)
        yield org
        for browser in org.browsers.values():
            browser.close()


@pytest.fixture(scope="module")
def shares(org: Org) -> dict[str, dict[str, str]]:
    return {
        visibility: org.create("alice", f"ses_{visibility}{number}", visibility)
        for number, visibility in enumerate(("private", "organization", "link"), start=1000)
    }


READS = (
    "/api/share/{id}",
    "/api/share/{id}/data",
    "/api/share/{id}/metadata",
    "/api/share/{id}/events",
    "/api/share/{id}/export?format=markdown",
    "/share/{id}",
    "/share/{id}/part/prt_1",
)
MAY_READ = {
    "private": {"alice", "boss", "root"},
    "organization": {"alice", "bob", "viewer", "boss", "root"},
    "link": set(PEOPLE),
}
MAY_LIST = {
    "private": {"alice", "boss", "root"},
    "organization": {"alice", "bob", "viewer", "boss", "root"},
    "link": {"alice", "boss", "root"},
}


@pytest.mark.parametrize("visibility", MAY_READ)
@pytest.mark.parametrize("path", READS)
def test_a_share_is_read_by_those_alone_whom_it_is_for(org, shares, visibility, path):
    may = set()
    for name, browser in org.browsers.items():
        with browser.stream("GET", path.format(id=shares[visibility]["id"])) as answer:
            assert answer.status_code in (200, 403), (name, answer.status_code)
            if answer.status_code == 200:
                may.add(name)
    assert may == MAY_READ[visibility]


def listed(org: Org, name: str, path: str) -> str:
    answer = org.browsers[name].get(path)
    assert answer.status_code == 200
    return answer.text


@pytest.mark.parametrize("path", ["/api/sessions?limit=200", "/sessions", "/api/search?q=elderberry"])
def test_a_share_is_listed_and_found_by_those_alone_whom_it_is_for(org, shares, path):
    for visibility, made in shares.items():
        seen = {name for name in PEOPLE if made["id"] in listed(org, name, path)}
        assert seen == MAY_LIST[visibility]


def test_the_caller_s_own_shares_are_nobody_elses(org, shares):
    for name in PEOPLE:
        found = {each["id"] for each in org.browsers[name].get("/api/my-sessions").json()["sessions"]}
        assert found == ({made["id"] for made in shares.values()} if name == "alice" else set())


@pytest.mark.parametrize("name", ["bob", "viewer", "mallory"])
def test_nobody_else_deletes_a_share(org, shares, name):
    for made in shares.values():
        assert org.browsers[name].request("DELETE", f"/api/share/{made['id']}").status_code == 403
        assert org.browsers[name].post(f"/sessions/{made['id']}/delete").status_code == 403


def test_an_admin_of_the_organization_deletes_its_shares(org):
    made = org.create("bob", "ses_7777777", "private")
    assert org.browsers["boss"].request("DELETE", f"/api/share/{made['id']}").status_code == 200


def test_a_viewer_makes_no_shares(org):
    answer = org.browsers["viewer"].post("/api/share", json={"sessionID": "ses_1"})
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


def test_a_key_of_a_user_acts_for_the_user_and_for_no_other(org, shares):
    key = org.key_of("bob", "create", "read")
    with httpx.Client(base_url=org.server.url, headers={"Authorization": f"ApiKey {key}"}) as client:
        assert client.get(f"/api/share/{shares['organization']['id']}").status_code == 200
        assert client.get(f"/api/share/{shares['private']['id']}").status_code == 403
        made = client.post("/api/share", json={"sessionID": "ses_88888888"}).json()
    own = {each["id"] for each in org.browsers["bob"].get("/api/my-sessions").json()["sessions"]}
    assert made["id"] in own


def test_keys_are_managed_within_an_organization(org):
    org.key_of("alice", "create")

    def users_of_keys(name: str) -> set[str]:
        lines = '["push",["pipeline",0,["keys"],[]]]\n["push",["pipeline",1,["list"],[]]]\n["pull",2]'
        text = org.browsers[name].post("/rpc", content=lines).text
        return set(re.findall(r'"user":"(usr_\w+)"', text))

    assert users_of_keys("alice") == {org.ids["alice"]}
    assert org.ids["alice"] in users_of_keys("boss")
    assert org.ids["alice"] not in users_of_keys("mallory")
    assert org.ids["alice"] in users_of_keys("root")


async def over_websocket(org: Org, name: str) -> ShareClient:
    key = await asyncio.to_thread(org.key_of, name, "admin")
    return ShareClient(org.server.url, token=key)


async def test_users_are_managed_over_rpc_within_an_organization(org):
    async with await over_websocket(org, "boss") as client:
        users = client.api.users()
        page = await users.list()
        assert {each["id"] for each in page["users"]} == {
            org.ids[name] for name, (organization, _) in PEOPLE.items() if organization == "acme"
        }
        assert (await users.get(org.ids["bob"]))["email"] == "bob@acme.example"
        for call in (
            users.get(org.ids["mallory"]),
            users.setRole(org.ids["mallory"], "viewer"),
            users.disable(org.ids["mallory"]),
            users.claimShares(org.ids["mallory"], {"subject": "ci"}),
        ):
            with pytest.raises(RpcError, match="there is no such user"):
                await call
        with pytest.raises(RpcError, match="Forbidden"):
            await users.setRole(org.ids["bob"], "server-admin")
        with pytest.raises(RpcError, match="Forbidden"):
            await users.claimShares(org.ids["bob"], {"subject": "ci"})
    async with await over_websocket(org, "bob") as client:
        with pytest.raises(RpcError, match="only an admin may manage users"):
            await client.api.users().list()


async def test_whoami_says_which_user_the_caller_is(org):
    async with await over_websocket(org, "alice") as client:
        me = await client.api.whoami()
    usage = me.pop("usage")
    assert set(usage) == {"user", "organization"}
    assert usage["user"]["shares"]["limit"] is None
    assert me == {
        "subject": org.ids["alice"],
        "scopes": ["create"],
        "user": {
            "id": org.ids["alice"],
            "email": "alice@acme.example",
            "name": "Alice",
            "avatarURL": "",
            "organization": "acme",
            "role": "member",
        },
    }


def command(org: Org, *arguments: str) -> Any:
    environment = bare_environment(RPCSHARE_URL=org.server.url, RPCSHARE_TOKEN=org.server.token)
    finished = subprocess.run(
        [RPCSHARE, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_command_claims_the_shares_of_an_old_subject(org):
    data = Path(org.server.data_dir)
    key = command(org, "keys", "create", "old-laptop", f"--data-dir={data}").strip()
    headers = {"Authorization": f"ApiKey {key}"}
    with httpx.Client(base_url=org.server.url, headers=headers, timeout=60) as client:
        made = client.post("/api/share", json={"sessionID": "ses_44444444", "visibility": "private"}).json()
        assert org.browsers["bob"].get(f"/api/share/{made['id']}").status_code == 403
        told = json.loads(command(org, "users", "claim", org.ids["bob"], "old-laptop", "--json"))
        assert told["claimed"] == 1
        assert org.browsers["bob"].get(f"/api/share/{made['id']}").status_code == 200
        assert client.get(f"/api/share/{made['id']}").status_code == 403
        sync = {"secret": made["secret"], "data": []}
        assert client.post(f"/api/share/{made['id']}/sync", json=sync).status_code == 200


def test_disabling_by_a_command_ends_sessions_and_keys(org):
    key = org.key_of("alice", "create")
    command(org, "users", "disable", org.ids["alice"])
    try:
        with httpx.Client(base_url=org.server.url, headers={"Authorization": f"ApiKey {key}"}) as client:
            for asked in (client, org.browsers["alice"]):
                for _ in range(600):
                    if asked.get("/api/my-sessions").status_code == 401:
                        break
                    asked.get("/healthz")
                else:
                    pytest.fail("it is let in still")
    finally:
        command(org, "users", "enable", org.ids["alice"])


def test_commands_show_and_change_limits(org):
    user = org.ids["bob"]
    told = command(org, "users", "limits", user, "--storage", "1.5GiB", "--shares", "7", "--requests", "none")
    assert "of 7 shares" in told
    assert "of 1,610,612,736 bytes" in told
    told = json.loads(command(org, "users", "limits", user, "--shares", "default", "--json"))
    assert told["user"]["shares"]["limit"] is None
    assert told["user"]["storage"]["limit"] == 1_610_612_736
    command(org, "users", "limits", user, "--storage", "default")
    assert "of 60 requests" in command(org, "organizations", "limits", "acme", "--requests", "60000").replace(
        "60,000", "60"
    )
    command(org, "organizations", "limits", "acme", "--requests", "default")
    listed = json.loads(command(org, "organizations", "list", "--json"))
    assert "acme" in [each["name"] for each in listed]
    assert "organization.limits" in command(org, "organizations", "audit", "acme", "--limit", "5")


def test_a_limit_that_is_none_of_these_is_told_by_name(org):
    environment = bare_environment(RPCSHARE_URL=org.server.url, RPCSHARE_TOKEN=org.server.token)
    asked = [RPCSHARE, "users", "limits", org.ids["bob"], "--storage", "lots"]
    finished = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert "--storage" in finished.stderr
    assert "10GiB" in finished.stderr
