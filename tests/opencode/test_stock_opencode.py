"""A stock opencode that knows the server by ``enterprise.url`` alone, as docs/opencode.md configures it."""

import base64
import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from opencode.opencode_runner import AVAILABLE, MISSING, Api, Opencode, Provider, link_in, prompt, settle
from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = [
    pytest.mark.rare,
    pytest.mark.node,
    pytest.mark.skipif(not AVAILABLE, reason=MISSING),
    pytest.mark.timeout(900),  # opencode takes seconds to start, and a minute on a busy machine
]

GIT = shutil.which("git")

TEXT_FILE = {
    "type": "file",
    "mime": "text/plain",
    "filename": "note.txt",
    "url": "data:text/plain;base64,aGk=",
}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with Provider(tmp_path_factory.mktemp("provider") / "project") as provider:
        if GIT is not None:
            under_git(GIT, provider.project)
        yield provider


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: opencode takes its time to move into a new one."""
    return tmp_path_factory.mktemp("opencode")


@pytest.fixture(scope="module")
def config(server: RunningServer) -> Mapping[str, Any]:
    key = rpcshare("keys", "create", "laptop", "--data-dir", str(server.data_dir)).strip()
    return {"share": "auto", "enterprise": {"url": f"{server.url}/k/{key}"}}


@pytest.fixture(scope="module")
def api(home: Path, provider: Provider, config: Mapping[str, Any]) -> Iterator[Api]:
    """An opencode that shares every new session, with a key."""
    with Opencode(home, provider, config=config).serve() as api:
        yield api


def under_git(git: str, project: Path) -> None:
    """Put a project under git: only there does opencode keep track of what changes."""
    author = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    subprocess.run([git, "init", "--quiet"], cwd=project, check=True)
    commit = ("commit", "--quiet", "--allow-empty", "--message=Start")
    subprocess.run([git, *author, *commit], cwd=project, check=True)


def rpcshare(*arguments: str) -> str:
    return subprocess.run(
        [RPCSHARE, *arguments], env=bare_environment(), stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def new_session(api: Api, *scenarios: str) -> str:
    session_id = str(api.post("/session", {})["id"])
    for scenario in scenarios:
        ask(api, session_id, scenario)
    return session_id


def ask(api: Api, session_id: str, scenario: str) -> None:
    api.post(f"/session/{session_id}/message", prompt(f"Please [scenario:{scenario}]"))


def link_of(api: Api, session_id: str) -> str:
    return str(api.get(f"/session/{session_id}")["share"]["url"])


def data_of(link: str) -> httpx.Response:
    """Ask for a share's data as anybody with its link may."""
    url, _, share_id = link.rpartition("/share/")
    return httpx.get(f"{url}/api/share/{share_id}/data")


def session_of(link: str) -> str:
    url, _, share_id = link.rpartition("/share/")
    return str(httpx.get(f"{url}/api/share/{share_id}/metadata").raise_for_status().json()["sessionID"])


def listed(server: RunningServer, token: str, session_id: str) -> list[str]:
    """Return the ids of the caller's shares of a session."""
    answer = httpx.get(
        f"{server.url}/api/my-sessions",
        params={"q": session_id},
        headers={"Authorization": f"Bearer {token}"},
    )
    return [share["id"] for share in answer.raise_for_status().json()["sessions"]]


def assert_all_shared(api: Api, session_id: str) -> None:
    """Check that the share of a session is what opencode has stored: all of it, and nothing else."""
    answer = data_of(link_of(api, session_id))
    assert answer.status_code == 200
    shared: dict[str, list[Any]] = {"session": [], "message": [], "part": [], "session_diff": [], "model": []}
    for item in answer.json():
        shared[item["type"]].append(item["data"])
    messages = api.get(f"/session/{session_id}/message")
    assert shared["session"] == [api.get(f"/session/{session_id}")]
    assert in_order(shared["message"]) == in_order([message["info"] for message in messages])
    assert in_order(shared["part"]) == in_order([part for message in messages for part in message["parts"]])
    assert [model["id"] for models in shared["model"] for model in models] == ["fake"]


def kinds_of_parts(link: str) -> set[str]:
    return {item["data"]["type"] for item in data_of(link).json() if item["type"] == "part"}


def in_order(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: item["id"])


def test_every_message_and_part_is_shared_as_opencode_has_it(api: Api) -> None:
    session_id = new_session(api, "edit", "reason", "tools", "unicode")
    attached = {
        "parts": [*prompt("Please [scenario:hello]")["parts"], TEXT_FILE, {"type": "agent", "name": "build"}]
    }
    api.post(f"/session/{session_id}/message", attached)
    api.post(f"/session/{session_id}/shell", {"agent": "build", "command": "echo hello"})
    api.post(f"/session/{session_id}/summarize", {"providerID": "fake", "modelID": "fake"})
    ask(api, session_id, "fail")
    settle(lambda: assert_all_shared(api, session_id))
    kinds = {"text", "reasoning", "tool", "file", "agent", "compaction", "step-start", "step-finish"}
    assert kinds_of_parts(link_of(api, session_id)) >= kinds


@pytest.mark.skipif(GIT is None, reason="needs git")
def test_what_changed_in_a_repository_is_shared(api: Api) -> None:
    session_id = new_session(api, "edit")
    settle(lambda: assert_all_shared(api, session_id))
    assert "patch" in kinds_of_parts(link_of(api, session_id))


def test_the_page_of_a_share_has_every_part(api: Api) -> None:
    session_id = new_session(api, "edit")
    settle(lambda: assert_all_shared(api, session_id))
    page = httpx.get(link_of(api, session_id)).raise_for_status().text
    parts = [part["id"] for message in api.get(f"/session/{session_id}/message") for part in message["parts"]]
    assert set(re.findall(r'id="p-(prt_\w+)"', page)) == set(parts)


def test_an_import_brings_a_session_to_another_home(api: Api, provider: Provider, tmp_path: Path) -> None:
    session_id = new_session(api, "edit", "reason")
    settle(lambda: assert_all_shared(api, session_id))
    elsewhere = Opencode(tmp_path, provider)
    imported = elsewhere.command("import", link_of(api, session_id))
    assert session_id in imported.stdout, imported.stderr
    exported = json.loads(elsewhere.command("export", session_id).stdout)
    assert exported["messages"] == api.get(f"/session/{session_id}/message")
    assert exported["info"] == api.get(f"/session/{session_id}")


def test_a_session_that_is_not_shared_any_more_is_not_found(api: Api) -> None:
    session_id = new_session(api, "hello")
    settle(lambda: assert_all_shared(api, session_id))
    link = link_of(api, session_id)
    api.delete(f"/session/{session_id}/share")
    assert (data_of(link).status_code, httpx.get(link).status_code) == (404, 404)


def test_a_session_is_shared_whole_when_it_is_shared_late(api: Api) -> None:
    session_id = new_session(api, "hello")
    api.delete(f"/session/{session_id}/share")
    ask(api, session_id, "reason")
    api.post(f"/session/{session_id}/share", {})
    settle(lambda: assert_all_shared(api, session_id))


def test_a_session_longer_than_a_message_is_shared_whole(api: Api) -> None:
    session_id = new_session(api, "hello")
    api.delete(f"/session/{session_id}/share")
    text = base64.b64encode(b"kites " * 700_000).decode()
    attached = {**TEXT_FILE, "url": f"data:text/plain;base64,{text}"}
    for _ in range(2):
        parts = [*prompt("Please [scenario:hello]")["parts"], attached]
        api.post(f"/session/{session_id}/message", {"parts": parts})
    api.post(f"/session/{session_id}/share", {})
    settle(lambda: assert_all_shared(api, session_id))
    assert len(data_of(link_of(api, session_id)).content) > 18 * 2**20


def test_a_session_that_is_deleted_takes_its_share_along(api: Api) -> None:
    session_id = new_session(api, "hello")
    settle(lambda: assert_all_shared(api, session_id))
    link = link_of(api, session_id)
    api.delete(f"/session/{session_id}")

    def assert_gone() -> None:
        assert data_of(link).status_code == 404

    settle(assert_gone)


def test_creating_twice_makes_one_share(
    home: Path, provider: Provider, config: Mapping[str, Any], server: RunningServer
) -> None:
    finished = Opencode(home, provider, config=config).run("--share", "Please [scenario:hello]")
    link = link_in(finished.stderr, server.url)
    share_id = link.rpartition("/")[2]
    created = [line for line in server.log.read_text().splitlines() if "action=share.create" in line]
    assert sum(f"share={share_id} " in line for line in created) == 2, (
        "this opencode creates another number of times"
    )
    key = str(config["enterprise"]["url"]).rpartition("/")[2]
    session_id = session_of(link)
    assert listed(server, key, session_id) == [share_id]


def test_the_admin_token_may_be_read_from_its_file(
    home: Path, provider: Provider, server: RunningServer
) -> None:
    token_file = server.data_dir / "admin-token"
    enterprise = {"url": f"{server.url}/k/{{file:{token_file}}}"}
    finished = Opencode(home, provider, config={"enterprise": enterprise}).run(
        "--share", "Please [scenario:hello]"
    )
    link = link_in(finished.stderr, server.url)
    assert listed(server, server.token, session_of(link)) == [link.rpartition("/")[2]]


def test_sharing_again_sends_what_was_lost_in_an_outage(
    home: Path, provider: Provider, tmp_path: Path
) -> None:
    with RunningServer(tmp_path / "data") as server:
        config = {"share": "auto", "enterprise": {"url": f"{server.url}/k/{server.token}"}}
        with Opencode(home, provider, config=config).serve() as api:
            session_id = new_session(api, "hello")
            settle(lambda: assert_all_shared(api, session_id))
            server.stop()
            with socket.create_server(("127.0.0.1", server.port)) as outage:
                outage.settimeout(20)
                ask(api, session_id, "unicode")
                outage.accept()[0].close()  # a sync, which opencode does not send again
            server.restart()
            api.post(f"/session/{session_id}/share", {})
            settle(lambda: assert_all_shared(api, session_id))


def test_a_certificate_of_a_private_ca_is_good_once_opencode_has_the_ca(
    home: Path, provider: Provider, tmp_path: Path
) -> None:
    rpcshare("certs", "init", "--data-dir", str(tmp_path / "ca"))
    certs = tmp_path / "ca" / "certs"
    tls = (f"--tls-cert={certs / 'server.pem'}", f"--tls-key={certs / 'server-key.pem'}")
    with RunningServer(tmp_path / "data", *tls) as server:
        config = {"enterprise": {"url": f"{server.url}/k/{server.token}"}}
        env = {"NODE_EXTRA_CA_CERTS": str(certs / "ca.pem")}
        finished = Opencode(home, provider, config=config, env=env).run("--share", "Please [scenario:hello]")
        trusted = ssl.create_default_context(cafile=certs / "ca.pem")
        assert httpx.get(link_in(finished.stderr, server.url), verify=trusted).status_code == 200


def exported(opencode: Opencode, session_id: str) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(opencode.command("export", session_id).stdout)
    return whole


def imported(opencode: Opencode, file: Path) -> str:
    """Import a file, and return the id of the session that it holds."""
    finished = opencode.command("import", str(file))
    found = re.search(r"Imported session: (\S+)", finished.stdout)
    assert found is not None, finished.stdout + finished.stderr
    return found[1]


def pushed_and_pulled(server: RunningServer, file: Path, *arguments: str) -> Path:
    """Share a session from a file, fetch it as opencode's own, and return where that is."""
    access = ("--url", server.url, "--token", server.token)
    url = rpcshare("push", str(file), *arguments, *access).strip()
    pulled = file.with_name("pulled.json")
    rpcshare("pull", url, "--format", "opencode", "-o", str(pulled), *access)
    return pulled


def test_an_export_comes_back_from_a_share_as_it_was(
    api: Api, home: Path, provider: Provider, server: RunningServer, tmp_path: Path
) -> None:
    session_id = new_session(api, "edit", "reason", "tools", "unicode")
    attached = {"parts": [*prompt("Please [scenario:hello]")["parts"], TEXT_FILE]}
    api.post(f"/session/{session_id}/message", attached)
    before = exported(Opencode(home, provider), session_id)
    file = tmp_path / "session.json"
    file.write_text(json.dumps(before))
    pulled = pushed_and_pulled(server, file, f"{session_id}again")
    elsewhere = Opencode(tmp_path, provider)
    assert imported(elsewhere, pulled) == session_id
    assert exported(elsewhere, session_id) == before


def is_within(part: object, whole: object) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and is_within(part[name], whole[name]) for name in part)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(is_within, part, whole))
    return part == whole


TRANSCRIPTS = Path(__file__).parents[1] / "fixtures" / "transcripts"


@pytest.mark.parametrize(
    "name", ["claude-code.jsonl", "codex.jsonl", "gemini-session.json", "opencode-2.json"]
)
def test_another_agent_s_transcript_can_be_imported(
    name: str, provider: Provider, server: RunningServer, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes((TRANSCRIPTS / name).read_bytes())
    pulled = pushed_and_pulled(server, file)
    elsewhere = Opencode(tmp_path, provider)
    session = exported(elsewhere, imported(elsewhere, pulled))
    (expected,) = [json.loads(pulled.read_text())["messages"]]
    assert [message["info"]["id"] for message in session["messages"]] == [
        message["info"]["id"] for message in expected
    ]
    for message, told in zip(session["messages"], expected, strict=True):
        assert [part["id"] for part in message["parts"]] == [part["id"] for part in told["parts"]]
        for part, whole in zip(message["parts"], told["parts"], strict=True):
            assert is_within(part, whole)  # opencode drops fields that it does not know


def test_what_opencode_itself_would_not_write_can_be_imported(
    provider: Provider, server: RunningServer, tmp_path: Path
) -> None:
    message = {"id": "msg_1", "role": "assistant", "error": {"name": "Odd", "data": {"message": "x"}}}
    given: list[dict[str, Any]] = [
        {"type": "text", "text": "a", "metadata": None, "synthetic": "yes", "time": {"start": -1}},
        {"type": "file", "mime": None, "url": "data:,x", "source": {"start": 0, "end": 1, "text": "@a"}},
        {"type": "agent", "name": "a", "source": {"start": "0"}},
        {"type": "retry", "attempt": "2", "error": {"message": "slow down"}},
        {"type": "subtask", "prompt": None, "model": {"providerID": 7}},
        {"type": "step-finish", "tokens": {"input": None, "cache": {"read": "x"}}},
        {"type": "compaction", "overflow": None},
        {"type": "tool", "tool": "x", "state": {"status": "error", "metadata": [], "error": {}}},
        {"type": "of-the-future", "kites": 7},
    ]
    parts = [{"id": f"prt_{n}", "messageID": "msg_1", **each} for n, each in enumerate(given)]
    items = [
        {"type": "session", "data": {"id": "ses_odd"}},
        {"type": "message", "data": message},
        *({"type": "part", "data": part} for part in parts),
    ]
    file = tmp_path / "odd.json"
    file.write_text(json.dumps(items))
    elsewhere = Opencode(tmp_path, provider)
    session = exported(elsewhere, imported(elsewhere, pushed_and_pulled(server, file, "ses_odd")))
    assert [part["id"] for part in session["messages"][0]["parts"]] == [part["id"] for part in parts]
