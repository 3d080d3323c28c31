"""Agents over RPC with npm's capnweb: started, sent to and watched in one round trip, and answered."""

import json
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from support.scripted_agents import ScriptedAgents

NODE = Path(__file__).parent.parent / "node"

pytestmark = [pytest.mark.slow, pytest.mark.node]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if shutil.which("node") is None or not (NODE / "node_modules").is_dir():
        pytest.skip("node or its packages are not installed")
    options = ("--agents=local", "--agents-unsafe", "--max-workspaces=1000")
    with ScriptedAgents(tmp_path_factory.mktemp("agents") / "data", *options) as running:
        yield running


@pytest.fixture
def run(server, request):
    headers = {"Authorization": f"Bearer {server.token}"}
    name = request.node.name[:60].replace("[", "-").strip("]")
    made = httpx.post(server.url + "/api/workspaces", json={"name": name}, headers=headers, timeout=60)
    workspace = made.json()["id"]

    def run(scenario):
        url = server.url.replace("http", "ws", 1) + "/rpc"
        command = ["node", "agents_client.mjs", url, server.token, scenario, workspace]
        done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return told["result"], told["frames"]

    return run


def test_start_send_and_watch_leave_in_one_round_trip(run):
    result, frames = run("pipelined")
    first_in = next(at for at, (way, _) in enumerate(frames) if way == "in")
    sent = "".join(text for _, text in frames[:first_in])
    assert all(f'["{name}"]' in sent for name in ("agents", "start", "send", "watch"))
    kinds = [event["type"] for event in result["events"]]
    assert kinds[0] == "status"
    assert "snapshot" in kinds[:4]
    assert result["events"][-1]["messageID"] == result["sent"]["messageID"]
    assert result["info"]["share"]["url"].endswith(result["info"]["share"]["id"])
    assert all(event["cursor"] for event in result["events"])


@pytest.mark.parametrize("scenario", ["approvedInAnEvent", "approvedInACallback"])
def test_an_event_that_asks_has_what_answers_it(run, scenario):
    result, _ = run(scenario)
    asked, answered = [event for event in result["events"] if event["type"] == "approval"]
    assert (asked["state"], asked["approval"]) == ("asked", "function")
    assert asked["permission"] == "bash"
    assert answered["state"] == "answered"
    assert "approval" not in answered
    assert answered["answer"]["reply"] == ("once" if scenario == "approvedInAnEvent" else "reject")
    assert result.get("approvals", 0) == 0


def test_asking_is_a_stream_that_ends_with_the_turn(run):
    result, _ = run("asked")
    assert [event["state"] for event in result["events"] if event["type"] == "turn"] == [
        "queued",
        "started",
        "ended",
    ]
    assert "snapshot" not in [event["type"] for event in result["events"]]


def test_every_method_answers_as_it_is_described(run):
    result, _ = run("everyMethod")
    assert (result["info"]["title"], result["info"]["budget"]) == ("Mine", {"turns": 5})
    assert result["queue"][0]["messageID"] == "msg_first"
    assert result["queue"][1]["attachments"] == [{"filename": "", "mimeType": "text/plain"}]
    assert result["unqueued"] == {"removed": True}
    assert result["paused"] == "paused"
    assert "/approve/" in result["link"]["url"]
    assert result["same"]["state"] == "asked"
    assert result["answered"]["answer"] == {"reply": "always"}
    assert result["twice"]["code"] == "INVALID_ARGUMENT"
    assert result["info"]["id"] in result["listed"]
    assert result["gone"]["code"] == "SESSION_TERMINATED"
    assert result["unknown"] == {"message": "there is no such agent", "code": "SESSION_NOT_FOUND"}
    for name, word in (("wrong", "model"), ("misspelt", "promt"), ("status", "status"), ("cursor", "cursor")):
        assert result[name]["code"] == "INVALID_ARGUMENT"
        assert word in result[name]["message"]
