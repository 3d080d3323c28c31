"""Whatever is killed in the middle of a turn: nothing sent is lost or run twice, and each status is true.

Servers are processes of their own, and so is what they are killed by.
"""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import rpcshare
from agents.real_agents import BINARY
from agents.scripted_model import ScriptedModel
from agents.servers_of_agents import *  # noqa: F403 -- fixtures
from agents.servers_of_agents import configuration, server, two_servers, wait_for
from support.running_server import RunningServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="needs the opencode of tests/opencode"),
]

POINTS = 20
FEW = (3, 11, 17)
"""Of them, what the slow tier tries."""
TURN = 6.0
"""Seconds of the turns that are cut, on a machine with little else to do."""


def kill_opencode(folder: Path) -> int:
    """Kill each opencode that runs on a workspace in ``folder``; return how many there were."""
    count = 0
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                command = (path / "cmdline").read_bytes()
                mounts = (path / "mountinfo").read_text()
            except OSError:
                continue
            if command.startswith(b"/opt/opencode/opencode\0serve") and f"{folder}/workspaces/" in mounts:
                os.kill(int(path.name), signal.SIGKILL)
                count += 1
    return count


def points() -> list[Any]:
    return [
        pytest.param(point, marks=[] if point in FEW else [pytest.mark.rare], id=f"{point}")
        for point in range(POINTS)
    ]


async def begun(running: RunningServer, delivery: str = "queue") -> str:
    """Start an agent with a turn of several steps, and two messages behind it; return its ID."""
    async with rpcshare.connect(running.url, token=running.token) as api:
        workspace = (await api.workspaces().create({"name": "site"}).info())["id"]
        agent = api.agents().start({"workspace": workspace, "prompt": "First [scenario:edit]"})
        agent_id = (await agent.info())["id"]
        await agent.send("Second [scenario:long]", {"delivery": delivery})
        await agent.send("Third [scenario:hello]")
        return str(agent_id)


async def finish(running: RunningServer, agent_id: str) -> None:
    """Resume an agent until all that was sent to it has ended."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        async with rpcshare.connect(running.url, token=running.token) as api:
            agent = api.agents().get(agent_id)
            info, queue = await agent.info(), await agent.queue()
            if info["status"] == "idle" and not queue:
                return
            assert info["status"] not in ("failed", "terminated"), info
            if info["status"] == "interrupted":
                await agent.resume()
        await asyncio.sleep(0.3)
    raise AssertionError(f"{info}, {queue}")


async def check(running: RunningServer, model: ScriptedModel, agent_id: str) -> None:
    """Require that each message was heard, that none was given twice, and that the events have no gap."""
    async with rpcshare.connect(running.url, token=running.token) as api:
        info = await api.agents().get(agent_id).info()
        events = await events_of(api, agent_id)
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{running.url}/api/share/{info['share']['id']}/data")
    parts = [each["data"] for each in answer.json() if each["type"] == "part"]
    said = json.dumps(parts)
    for number in ("First", "Second", "Third"):
        assert said.count(f"{number} [scenario:") == 1, f"{number} is in the transcript once"
        assert any(number in json.dumps(body) for body in model.asked), f"{number} was heard"
    # A turn that was cut off is not begun again: what the model has answered is not asked a second time.
    firsts = [body for body in model.asked if last_words(body).startswith("First") and len(roles(body)) == 1]
    assert len([each for each in firsts if not is_title(each)]) <= 1
    ended = [each["messageID"] for each in events if each["type"] == "turn" and each["state"] == "ended"]
    assert len(ended) == len(set(ended))
    assert "running" not in [part["state"]["status"] for part in parts if part["type"] == "tool"]


async def events_of(api: Any, agent_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    stream = await api.agents().get(agent_id).watch("0.0")
    try:
        async with asyncio.timeout(2):
            async for event in stream:
                found.append(event)  # noqa: PERF401 -- it is cut off
    except TimeoutError:
        pass
    return found


def roles(body: dict[str, Any]) -> list[str]:
    return [each["role"] for each in body["messages"] if each["role"] != "system"]


def last_words(body: dict[str, Any]) -> str:
    users = [each["content"] for each in body["messages"] if each["role"] == "user"]
    return users[-1] if isinstance(users[-1], str) else str(users[-1][-1]["text"])


def is_title(body: dict[str, Any]) -> bool:
    return "title generator" in json.dumps(body["messages"])


@pytest.mark.parametrize("point", points())
async def test_opencode_is_killed_at_a_point_of_a_turn(tmp_path, model, point):
    with server(tmp_path, "data", configuration(tmp_path, model)) as running:
        agent_id = await begun(running)
        await wait_for(running, agent_id, "running", "idle")
        await asyncio.sleep(TURN * point / POINTS)
        assert kill_opencode(tmp_path) == 1
        await wait_for(running, agent_id, "interrupted", "running", "idle", seconds=10)
        await finish(running, agent_id)
        await check(running, model, agent_id)


@pytest.mark.parametrize("point", points())
async def test_the_server_is_killed_at_a_point_of_a_turn(tmp_path, model, point):
    with server(tmp_path, "data", configuration(tmp_path, model)) as running:
        agent_id = await begun(running)
        await asyncio.sleep(TURN * 1.5 * point / POINTS)
        running.kill()
        running.restart()
        await finish(running, agent_id)
        await check(running, model, agent_id)


@pytest.mark.parametrize("point", points())
async def test_one_of_two_nodes_is_killed_at_a_point_of_a_turn(
    tmp_path, model, postgres_url, bucket_url, point
):
    with two_servers(tmp_path, model, bucket_url, postgres_url) as (one, two):
        agent_id = await begun(one)
        await asyncio.sleep(TURN * 1.5 * point / POINTS)
        one.kill()
        # What it says is true: nobody runs the turn, or another node has begun to.
        await wait_for(two, agent_id, "interrupted", "initializing", "running", "idle", seconds=10)
        await finish(two, agent_id)
        await check(two, model, agent_id)
