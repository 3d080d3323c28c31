"""The plugin in a real opencode: what the server holds is what opencode has stored.

``RPCSHARE_TEST_RUNS=20`` has the tests of a process's end run that often; twice is the default.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rpcshare
from opencode.opencode_runner import AVAILABLE, MISSING, Api, Opencode, Provider, link_in, prompt, settle
from support.npm_packages import PLUGIN, built, needs_packages
from support.running_server import RunningServer

RUNS = int(os.environ.get("RPCSHARE_TEST_RUNS", "2"))

pytestmark = [
    pytest.mark.rare,
    pytest.mark.node,
    needs_packages,
    pytest.mark.skipif(not AVAILABLE, reason=MISSING),
    pytest.mark.timeout(240),  # opencode takes seconds to start, and a minute on a busy machine
]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with Provider(tmp_path_factory.mktemp("provider") / "project") as provider:
        yield provider


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: opencode takes its time to move into a new one."""
    return tmp_path_factory.mktemp("opencode")


@pytest.fixture
def opencode(home: Path, provider: Provider, server: RunningServer) -> Callable[..., Opencode]:
    built()

    def make(**options: object) -> Opencode:
        plugin = [f"file://{PLUGIN}", {"url": server.url, "token": server.token, **options}]
        return Opencode(home, provider, config={"plugin": [plugin]})

    return make


def held(server: RunningServer, session_id: str) -> dict[str, Any]:
    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        (share,) = client.list_shares(query=session_id).sessions
        return client.get_share(share.id)


def assert_equal(server: RunningServer, api: Api, session_id: str) -> None:
    """Check that the server holds what opencode has stored, and nothing else."""
    messages = api.get(f"/session/{session_id}/message")
    share = held(server, session_id)
    assert share["session"] == api.get(f"/session/{session_id}")
    by_id = {message["id"]: message for message in share["messages"]}
    assert by_id == {message["info"]["id"]: message["info"] for message in messages}
    parts = {part["id"]: part for part in share["parts"]}
    assert parts == {part["id"]: part for message in messages for part in message["parts"]}
    assert [model["id"] for model in share["models"]] == ["fake"]
    diffs = api.get(f"/session/{session_id}/diff")
    assert share["diffs"][len(share["diffs"]) - len(diffs) :] == diffs


def shared_session(server: RunningServer, link: str) -> str:
    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        return client.get_share_metadata(link.rpartition("/")[2]).session_id


@pytest.mark.timeout(60 + 60 * RUNS)
def test_all_has_arrived_when_a_run_has_ended(
    opencode: Callable[..., Opencode], server: RunningServer
) -> None:
    sessions = []
    for number in range(RUNS):
        finished = opencode(auto=True).run(f"Please [scenario:{('hello', 'edit')[number % 2]}]")
        assert finished.returncode == 0, finished.stderr
        sessions.append(shared_session(server, link_in(finished.stderr, server.url)))
    with opencode(auto=False).serve() as api:
        for session_id in sessions:
            assert_equal(server, api, session_id)


def test_all_has_arrived_after_every_turn(opencode: Callable[..., Opencode], server: RunningServer) -> None:
    with opencode(auto=True).serve() as api:
        session_id = api.post("/session", {})["id"]
        for scenario in ("edit", "reason", "fail"):
            api.post(f"/session/{session_id}/message", prompt(f"Please [scenario:{scenario}]"))
            settle(lambda: assert_equal(server, api, session_id))


def test_a_session_is_shared_and_unshared_by_commands(
    opencode: Callable[..., Opencode], server: RunningServer
) -> None:
    with opencode().serve() as api:
        session_id = api.post("/session", {})["id"]
        api.post(f"/session/{session_id}/message", prompt("Please [scenario:hello]"))

        def type_command(name: str) -> str:
            api.post(f"/session/{session_id}/command", {"command": name, "arguments": ""})
            asked = api.get(f"/session/{session_id}/message")[-2]
            return str(asked["parts"][0]["text"])

        link = link_in(type_command("share"), server.url)
        assert shared_session(server, link) == session_id
        settle(lambda: assert_equal(server, api, session_id))
        assert "all of it has arrived" in type_command("share-status")
        assert "no longer shared" in type_command("unshare")
        with (
            rpcshare.connect_blocking(server.url, token=server.token) as client,
            pytest.raises(rpcshare.ShareError, match="Share not found"),
        ):
            client.get_share(link.rpartition("/")[2])


def test_a_server_that_is_killed_in_mid_session_loses_nothing(
    opencode: Callable[..., Opencode], home: Path, provider: Provider, tmp_path: Path
) -> None:
    built()
    with RunningServer(tmp_path / "data") as server:
        plugin = [f"file://{PLUGIN}", {"url": server.url, "token": server.token, "auto": True}]
        with Opencode(home, provider, config={"plugin": [plugin]}).serve() as api:
            session_id = api.post("/session", {})["id"]
            api.post(f"/session/{session_id}/message", prompt("Please [scenario:hello]"))
            server.kill()
            api.post(f"/session/{session_id}/message", prompt("Please [scenario:unicode]"))
            server.restart()
            settle(lambda: assert_equal(server, api, session_id))


def test_the_example_shares_a_session(
    home: Path, provider: Provider, server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "node_modules").symlink_to(built() / "node_modules")
    script = tmp_path / "opencode_plugin.mjs"
    script.write_text((Path(__file__).parents[2] / "examples" / "opencode_plugin.mjs").read_text())
    env = {"RPCSHARE_URL": server.url, "RPCSHARE_TOKEN": server.token}
    output = Opencode(home, provider, env=env).node(script, "Please [scenario:hello]")
    session_id = shared_session(server, link_in(output, server.url))
    assert "Hello from the fake model" in str(held(server, session_id)["parts"])
