"""Servers that run agents, in processes of their own, with a scripted model."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rpcshare
from agents.scripted_model import ScriptedModel
from opencode.opencode_runner import BINARY
from support.postgres_server import postgres_server, postgres_url
from support.running_server import RunningServer
from support.s3_server import ENDPOINT_VARIABLE, moto_server, real_server

__all__ = [
    "bucket_url",
    "configuration",
    "model",
    "postgres_server",
    "postgres_url",
    "server",
    "two_servers",
    "wait_for",
]


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as model:
        model.delay = 0.02
        yield model


@pytest.fixture
def bucket_url() -> Iterator[str]:
    with real_server() if os.environ.get(ENDPOINT_VARIABLE) else moto_server() as s3:
        location = s3.location()
        yield f"s3://{location.bucket}/{location.prefix}?endpoint_url={location.endpoint_url}&region=us-east-1"


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
    """Start one."""
    with RunningServer(
        folder / name, f"--config={config}", *options, env={"FAKE_KEY": "sk-fake", **env}
    ) as running:
        yield running


@contextmanager
def two_servers(
    folder: Path, model: ScriptedModel, bucket_url: str, postgres_url: str
) -> Iterator[tuple[RunningServer, RunningServer]]:
    """Start two over one bucket and one database."""
    config = configuration(folder, model)
    credentials = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    options = (f"--store={bucket_url}", f"--database={postgres_url}")
    with (
        server(folder, "one", config, *options, **credentials) as one,
        server(folder, "two", config, *options, **credentials) as two,
    ):
        yield one, two


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
