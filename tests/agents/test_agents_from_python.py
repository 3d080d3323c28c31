"""Agents in the typed clients of Python, asynchronous and blocking, and over connections that are lost."""

import asyncio
import json

import httpx
import pytest

import rpcshare
from rpcshare.errors import ErrorCode, ShareError
from support.scripted_agents import ScriptedAgents
from support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    options = ("--agents=local", "--agents-unsafe", "--max-workspaces=1000")
    with ScriptedAgents(tmp_path_factory.mktemp("agents") / "data", *options) as running:
        yield running


@pytest.fixture
def workspace(server, request):
    name = "".join(each if each.isalnum() else "-" for each in request.node.name)[:60]
    return ask(server, "POST", "/api/workspaces", json={"name": name}).json()["id"]


def ask(server, method, path, **options):
    headers = {"Authorization": f"Bearer {server.token}"} | options.pop("headers", {})
    return httpx.request(method, server.url + path, headers=headers, timeout=60, **options)


def is_end(event):
    return (event.type, event.value.get("state")) == ("turn", "ended")


async def test_an_agent_is_started_watched_answered_and_ended(server, workspace):
    async with rpcshare.ShareClient(server.url, token=server.token) as client:
        agent = await client.agents.start(workspace, "run ls", title="From Python", budget={"turns": 9})
        async with agent.watch() as events:
            async for event in events:
                if event.type == "approval" and event.value["state"] == "asked":
                    [request] = await agent.approvals()
                    assert request.permission == "bash"
                    assert "/approve/" in (await agent.link(request.id)).url
                    assert (await agent.answer(request.id, "once")).state == "answered"
                if is_end(event):
                    break
        kinds = [event.type async for event in agent.ask("hello")]
        assert kinds[-1] == "turn"
        info = await agent.info()
        assert (info.title, info.budget["turns"], info.is_over) == ("From Python", 9, False)
        assert (await client.get_share_metadata(info.share["id"])).session_id == agent.id
        page = await client.agents.list(workspace=workspace)
        assert [each.id for each in page.agents] == [agent.id]
        await agent.terminate()
        with pytest.raises(ShareError) as caught:
            await agent.send("more")
        assert caught.value.code is ErrorCode.SESSION_TERMINATED
        with pytest.raises(ShareError) as caught:
            await client.agents.get("ses_0").info()
        assert caught.value.code is ErrorCode.SESSION_NOT_FOUND


async def test_events_go_on_from_connection_to_connection_without_a_gap(server, workspace):
    async with (
        TcpProxy(server.url).run() as proxy,
        rpcshare.ShareClient(proxy.url, token=server.token, reconnect=True) as client,
    ):
        agent = await client.agents.start(workspace)
        numbers, ended = [], 0
        async with agent.watch() as events, asyncio.timeout(60):
            async for event in events:
                if event.type not in ("snapshot", "sync"):
                    numbers.append(int(event.cursor.partition(".")[2]))
                if is_end(event):
                    ended += 1
                    await proxy.cut()
                if ended == 3:
                    break
                if (event.type, event.value.get("status")) == ("status", "idle"):
                    await agent.send(f"hello {ended}")
        own = sorted(set(numbers))
        assert own == list(range(own[0], own[-1] + 1))
        assert len(numbers) == len(own)


def test_a_script_without_an_event_loop_does_the_same(server, workspace):
    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        agent = client.agents.start(workspace)
        said = [event for event in agent.ask("hello") if event.type == "sync"]
        assert said
        assert said[-1].data
        agent.pause()
        message = agent.send("later")
        assert [each.message_id for each in agent.queue()] == [message]
        assert agent.unqueue(message)
        agent.resume({"turns": 20})
        for event in agent.watch():
            if event.type == "status":
                break
        agent.terminate()
        assert client.agents.list(status="terminated", workspace=workspace).agents[0].id == agent.id


def test_over_http_it_is_the_same(server, workspace):
    started = ask(server, "POST", "/api/sessions", json={"workspace": workspace, "prompt": "run ls"})
    assert started.status_code == 200, started.text
    session = started.json()["sessionId"]
    path = f"/api/sessions/{session}"
    assert started.json()["websocketUrl"] == server.url.replace("http", "ws") + path + "/ws"
    events = read_stream(server, path, lambda event: event["type"] == "approval")
    approval = f"{path}/approvals/{events[-1]['id']}"
    assert ask(server, "GET", approval).json()["state"] == "asked"
    assert ask(server, "POST", approval, json={"answer": "maybe"}).status_code == 400
    assert ask(server, "POST", approval, json={"answer": "once"}).json()["state"] == "answered"
    assert ask(server, "POST", approval, json={"answer": "once"}).status_code == 400
    ended = lambda event: (event["type"], event.get("state")) == ("turn", "ended")  # noqa: E731
    later = read_stream(server, path, ended, events[-1]["cursor"])
    cursors = [event["cursor"] for event in events + later if event["type"] not in ("snapshot", "sync")]
    numbers = [int(each.partition(".")[2]) for each in cursors]
    assert numbers[1:] == sorted(set(numbers[1:]))
    [row] = [
        each
        for each in ask(server, "GET", "/api/sessions?limit=200").json()["sessions"]
        if each["sessionID"] == session
    ]
    assert row["agent"]["workspace"] == workspace
    assert ask(server, "POST", path + "/messages", json={"content": "hello", "x": 1}).status_code == 400
    sent = ask(server, "POST", path + "/messages", json={"content": "wait"}).json()
    assert ask(server, "POST", path + "/abort").json() == {"success": True}
    assert sent["messageID"].startswith("msg_")
    assert ask(server, "GET", path + "/diff").status_code == 200
    assert ask(server, "DELETE", path).json() == {"success": True}
    gone = ask(server, "POST", path + "/messages", json={"content": "hello"})
    assert (gone.status_code, gone.json()["code"]) == (410, "SESSION_TERMINATED")
    assert ask(server, "GET", path).json()["status"] == "terminated"
    missing = ask(server, "GET", "/api/sessions/ses_0/events")
    assert (missing.status_code, missing.json()["code"]) == (404, "SESSION_NOT_FOUND")
    bad = ask(server, "GET", path + "/events", headers={"Last-Event-ID": "x"})
    assert (bad.status_code, bad.json()["code"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "workspace"),
        ({"workspace": 5}, "workspace"),
        ({"workspace": "w", "config": []}, "config"),
        ({"workspace": "w", "config": {"modle": "x"}}, "config.modle"),
        ({"workspace": "w", "promt": "x"}, "promt"),
        ({"workspace": "w", "prompt": " "}, "prompt"),
        ({"workspace": "w", "config": {"budget": {"dollars": -1}}}, "budget"),
        ({"workspace": "w", "config": {"permission": {"bash": "maybe"}}}, "permission"),
        ({"workspace": "w", "config": {"model": "none/none"}}, "model"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(server, body, named):
    refused = ask(server, "POST", "/api/sessions", json=body)
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert named in refused.json()["error"]


def read_stream(server, path, is_last, cursor=None):
    headers = {"Authorization": f"Bearer {server.token}"}
    if cursor is not None:
        headers["Last-Event-ID"] = cursor
    found = []
    with httpx.stream("GET", f"{server.url}{path}/events", headers=headers, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        last_id = None
        for line in answer.iter_lines():
            if line.startswith("id: "):
                last_id = line[4:]
            if line.startswith("data: "):
                event = json.loads(line[6:])
                assert event["cursor"] == last_id
                found.append(event)
                if is_last(event):
                    return found
    return found
