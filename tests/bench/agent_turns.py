"""A prompt to a new agent in a workspace whose opencode runs already, beside opencode asked by its own API.

Both are the same process: once through a server's agents, once straight.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agents.real_agents import BINARY, World
from agents.scripted_model import ScriptedModel
from bench.figures import Figure
from rpcshare.agents.opencode.client import Opencode
from rpcshare.agents.opencode.events import OpencodeEvent

PROMPT = "Say hello [scenario:hello]"
ANSWER = "Hello from"

Times = tuple[float, float]
"""Seconds until something of the turn was told, and until the answer's first words were."""


async def _asked_straight(opencode: Opencode) -> Times:
    heard: asyncio.Queue[OpencodeEvent] = asyncio.Queue()

    async def follow() -> None:
        async for event in opencode.events():
            heard.put_nowait(event)

    following = asyncio.create_task(follow())
    await heard.get()
    begun, first = time.perf_counter(), 0.0
    session = await opencode._call("POST", "/session", {})
    assert isinstance(session, dict)
    model = {"providerID": "fake", "modelID": "scripted"}
    prompt = {"model": model, "parts": [{"type": "text", "text": PROMPT}]}
    await opencode._call("POST", f"/session/{session['id']}/prompt_async", prompt)
    while True:
        event = await heard.get()
        if event.session == session["id"]:
            if event.type == "message.updated":
                first = first or time.perf_counter() - begun
            if event.type == "message.part.updated" and ANSWER in str(event.data):
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                return first, time.perf_counter() - begun


async def _asked_here(world: World, workspace: str) -> Times:
    begun, first = time.perf_counter(), 0.0
    agent = await world.of().start({"workspace": workspace, "prompt": PROMPT})
    async for event in await world.of().watch(agent.id):
        told = msgspec.json.decode(event.json)
        if told["type"] in ("snapshot", "sync"):
            kinds = {each["type"] for each in told["data"]}
            if kinds & {"message", "part"}:
                first = first or time.perf_counter() - begun
            if ANSWER in str(told["data"]):
                break
    took = time.perf_counter() - begun
    await world.settled(agent)
    await world.of().terminate(agent.id)
    return first, took


async def _measured(rounds: int) -> tuple[list[Times], list[Times]]:
    os.environ["FAKE_KEY"] = "sk-fake-0123456789abcdef"
    here, straight = [], []
    with tempfile.TemporaryDirectory() as folder:
        async with ScriptedModel() as model, World(Path(folder), model) as world:
            workspace = await world.workspace()
            warm = await world.start(PROMPT, workspace=workspace)
            await world.settled(warm)
            opencode = world.runner(warm)._process.opencode
            for _ in range(rounds):
                straight.append(await _asked_straight(opencode))
                await asyncio.sleep(0.3)
                here.append(await _asked_here(world, workspace))
                await asyncio.sleep(0.3)
    return here, straight


def run(*, quick: bool) -> Iterator[Figure]:
    """Yield the figures; none where there is no opencode."""
    if BINARY is None:
        return
    here, straight = asyncio.run(_measured(5 if quick else 20))
    for place, name in enumerate(("until something of its turn is told", "until the answer's first words")):
        ours = statistics.median(each[place] for each in here)
        peer = statistics.median(each[place] for each in straight)
        yield Figure(f"a prompt to a new agent: {name}", "ms", ours * 1000, peer * 1000, 1.2)
