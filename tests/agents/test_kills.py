"""Whatever is killed in the middle of a turn: nothing sent is lost or run twice; each status is true.

Servers are processes of their own, and so is what they are killed by.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rpcshare
from agents.real_agents import BINARY
from agents.scripted_model import ScriptedModel
from support.postgres_server import *  # noqa: F403 -- fixtures
from support.running_server import RunningServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="needs the opencode of tests/opencode"),
]

POINTS = 20
FEW = (3, 11, 17)
"""Of them, what the slow tier tries."""
TURN = 6.0
"""Seconds of the turns that are cut, and of the start of their process, on a machine at rest."""


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as model:
        model.delay = 0.05
        yield model


def configuration(folder: Path, model: ScriptedModel) -> Path:
    """Write the settings of agents."""
    path = folder / "rpcshare.toml"
    path.write_text(
        f"""
agents = "local"
opencode_bin = "{BINARY}"
workspaces_dir = "{folder}/workspaces"
[models.fake]
kind = "openai"
base_url = "{model.url}"
key_env = "FAKE_KEY"
models = ["scripted"]
"""
    )
    return path


@contextmanager
def server(folder: Path, name: str, config: Path, *options: str, **env: str) -> Iterator[RunningServer]:
    with RunningServer(
        folder / name, f"--config={config}", *options, env={"FAKE_KEY": "sk-fake", **env}
    ) as running:
        yield running


async def wait_for(
    running: RunningServer, agent_id: str, *statuses: str, seconds: float = 60
) -> dict[str, Any]:
    """Return what is known of an agent once it has one of the statuses."""
    until = time.monotonic() + seconds
    info: dict[str, Any] = {}
    while time.monotonic() < until:
        async with rpcshare.connect(running.url, token=running.token) as api:
            info = await api.agents().get(agent_id).info()
        if info["status"] in statuses:
            return info
        await asyncio.sleep(0.2)
    raise AssertionError(f"{info} and not {statuses} within {seconds:.0f} s")


def kill_opencode(folder: Path) -> None:
    """Kill each opencode that runs on workspaces in ``folder``."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                command = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"/opt/opencode/opencode\0serve"):
                os.kill(int(path.name), signal.SIGKILL)


def points() -> list[Any]:
    return [
        pytest.param(point, marks=[] if point in FEW else [pytest.mark.rare], id=f"{point}")
        for point in range(POINTS)
    ]
