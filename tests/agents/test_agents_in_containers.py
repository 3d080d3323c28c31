"""A real opencode in containers: the image's own, and a workspace of git's making."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

pytest.importorskip("aiodocker", reason="needs aiodocker: pip install 'rpcshare[docker]'")

from agents.real_agents import BINARY, World, text_of
from agents.scripted_model import ScriptedModel
from rpcshare.config import Settings
from rpcshare.sandbox.docker import DockerDriver
from rpcshare.sandbox.driver import Mount
from sandbox.engines import Engine, host_mounts, image_archive, podman_engine

pytestmark = [
    pytest.mark.rare,
    pytest.mark.skipif(BINARY is None, reason="needs the opencode of tests/opencode"),
]

IMAGE = "localhost/rpcshare-agents-test"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with podman_engine() as engine:
        if isinstance(engine, str):
            pytest.skip(engine)
        made = engine.call(
            "POST",
            "/images/create",
            params={
                "fromSrc": "-",
                "repo": IMAGE,
                "tag": "latest",
                "changes": "ENV PATH=/run/agents:/usr/bin:/bin",
            },
            content=image_archive(),
            headers={"Content-Type": "application/x-tar"},
        )
        assert made.status_code == 200, made.text
        yield engine


async def test_an_agent_works_with_the_opencode_of_its_image(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_KEY", "sk-fake-0123456789abcdef0123456789")
    assert BINARY is not None
    mounts = [*host_mounts(), Mount(Path(BINARY), PurePosixPath("/run/agents/opencode"))]

    def driver(settings: Settings) -> DockerDriver:
        state = settings.data_dir / "sandboxes"
        return DockerDriver(settings.agents_image, state, engine=engine.socket, mounts=mounts)

    monkeypatch.setattr("rpcshare.server.workspaces_opening.sandbox_driver", driver)
    options: dict[str, Any] = {"agents": "docker", "agents_image": f"{IMAGE}:latest", "opencode_bin": None}
    async with ScriptedModel() as model, World(tmp_path, model, **options) as world:
        agent = await world.start("Edit [scenario:edit]")
        done = await world.settled(agent)
        assert done.error is None
        assert "I wrote app.py." in text_of(await world.items(agent))
        content = (await world.workspaces_of().files(agent.workspace).read("app.py")).content
        assert content == 'print("hi")\n'
        [running] = engine.containers()
        assert running["State"] == "running"
    assert engine.containers() == []
