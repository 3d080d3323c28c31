"""What the driver ``docker`` says of engines that it cannot use, and what it asks of those that it can."""

import asyncio
import inspect
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

pytest.importorskip("aiodocker", reason="needs aiodocker: pip install 'rpcshare[docker]'")

from aiohttp import web

from rpcshare.sandbox.container_config import container_config
from rpcshare.sandbox.container_engine import ContainerEngine, EngineAbilities, Image
from rpcshare.sandbox.docker import DockerDriver
from rpcshare.sandbox.driver import Mount, SandboxError, SandboxLimits, SandboxSpec
from rpcshare.sandbox.instance_lock import InstanceLock

VERSION = {"ApiVersion": "1.41", "Version": "20.10", "Components": [{"Name": "Engine"}]}
INFO = {
    "OSType": "linux",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
}
PODMAN = {**VERSION, "Components": [{"Name": "Podman Engine"}]}

Serve = Callable[..., Awaitable[ContainerEngine]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Returns what starts an engine that answers as it is told."""
    runners: list[web.AppRunner] = []
    engines: list[ContainerEngine] = []
    with tempfile.TemporaryDirectory(prefix="rpcs-") as folder:

        async def start(version: Any = VERSION, info: Any = INFO, **routes: Any) -> ContainerEngine:
            async def answer(request: web.Request) -> web.StreamResponse:
                name = request.path.rpartition("/")[2]
                found = {"version": version, "info": info, **routes}.get(name)
                if callable(found):
                    made = found(request)
                    return await made if inspect.isawaitable(made) else made
                if found is None:
                    return web.json_response({"message": f"no such thing: {name}"}, status=404)
                return web.json_response(found)

            app = web.Application()
            app.router.add_route("*", "/{path:.*}", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            runners.append(runner)
            path = Path(folder, f"{len(runners)}.sock")
            await web.UnixSite(runner, str(path)).start()
            engines.append(ContainerEngine(path))
            return engines[-1]

        yield start
        for engine in engines:
            await engine.close()
        for runner in runners:
            await runner.cleanup()


async def test_what_an_engine_is_and_can_do_is_known(serve):
    docker = await (await serve()).abilities()
    assert (docker.name, docker.groups, docker.is_rootless) == ("Docker", "cgroup v2", False)
    assert docker.controlled == {"memory", "pids", "cpu"}
    info = {**INFO, "Rootless": True, "PidsLimit": False, "CgroupVersion": "1"}
    podman = await (await serve(PODMAN, info)).abilities()
    assert (podman.name, podman.groups, podman.is_rootless) == ("Podman", "cgroup v1", True)
    assert podman.controlled == {"memory", "cpu"}


@pytest.mark.parametrize(
    ("version", "info", "said"),
    [
        ({**VERSION, "ApiVersion": "1.39"}, INFO, "too old: its API is 1.39"),
        (VERSION, {**INFO, "OSType": "windows"}, "of windows"),
        (VERSION, {**INFO, "SecurityOptions": []}, "no seccomp"),
        (VERSION, {**INFO, "SecurityOptions": ["name=seccomp", "name=rootless"]}, "rootless Docker"),
        ({"nothing": 1}, INFO, "does not answer as one does"),
        ([], INFO, "does not answer as one does"),
        (lambda _: web.Response(text="<html>"), INFO, "does not answer as one does"),
        (lambda _: web.json_response({"message": "busy"}, status=503), INFO, "busy"),
    ],
)
async def test_an_engine_that_does_not_do_is_a_sentence(serve, version, info, said):
    engine = await serve(version, info)
    with pytest.raises(SandboxError, match=said) as caught:
        await engine.abilities()
    assert "\n" not in caught.value.message


async def test_an_engine_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(SandboxError, match=r"no container engine at .*/none .*start Docker"):
        await ContainerEngine(tmp_path / "none").abilities()
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match="is no socket"):
        await ContainerEngine(tmp_path / "file").abilities()


async def test_a_socket_at_which_nobody_listens_is_a_sentence():
    with tempfile.TemporaryDirectory(prefix="rpcs-") as folder:
        path = Path(folder, "dead.sock")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        driver = DockerDriver("image", Path(folder, "state"), engine=path)
        with pytest.raises(SandboxError, match="does not answer as one does: Cannot connect"):
            await driver.check()
        assert not Path(folder, "state").exists()


async def test_why_an_image_cannot_be_pulled_is_told_although_the_answer_began_well(serve):
    def create(_request: web.Request) -> web.Response:
        return web.Response(text='{"status": "Pulling"}\n{"error": "denied: who are you?"}\n')

    engine = await serve(create=create)
    with pytest.raises(SandboxError, match="cannot be pulled: denied: who are you"):
        await engine.image("registry.example/private")


async def test_hundreds_of_containers_that_are_waited_for_hold_nothing_up(serve):
    """Each wait is a connection; clients keep a hundred at most unless they are told otherwise."""
    going_on = asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        await going_on.wait()
        return web.json_response({"StatusCode": 0})

    engine = await serve(wait=wait)
    docker = engine.docker
    waits = [asyncio.ensure_future(docker.containers.container(f"c{n}").wait()) for n in range(150)]
    await asyncio.sleep(0)
    assert (await asyncio.wait_for(engine.abilities(), 30)).name == "Docker"
    going_on.set()
    assert len(await asyncio.gather(*waits)) == 150


ABILITIES = EngineAbilities(
    name="Docker",
    version="27",
    is_rootless=False,
    has_user_remap=False,
    has_selinux=False,
    groups="cgroup v2",
    controlled=frozenset({"memory", "pids", "cpu"}),
)
IMAGE = Image("sha256:1", {"PATH": "/opt/bin"}, ("/data/", "/workspace"), has_healthcheck=True)


def config(abilities: EngineAbilities = ABILITIES, **options: Any) -> dict[str, Any]:
    spec = SandboxSpec("one", ("true",), Path("/ws"), Path("/home/x"), Path("/run/x"), **options)
    made = container_config(
        spec,
        abilities=abilities,
        image=IMAGE,
        user=(1000, 1001),
        init=Path("/files/init.py"),
        control=Path("/run/x/c"),
        etc=[Path("/files/passwd"), Path("/files/hostname")],
        mounts=(),
        labels={"a": "b"},
        python="python3",
    )
    return dict(made)


def test_a_container_has_no_network_no_capability_and_nothing_that_is_writable_and_uncounted():
    made = config(limits=SandboxLimits(memory=2**28, cpus=0.5, processes=7))
    host = made["HostConfig"]
    assert (host["NetworkMode"], host["CapDrop"], host["ReadonlyRootfs"]) == ("none", ["ALL"], True)
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        2**28,
        2**28,
        5 * 10**8,
        7,
    )
    writable = {each["Target"] for each in host["Mounts"] if not each["ReadOnly"]}
    assert writable == {"/workspace", "/home/agent"}
    assert set(host["Tmpfs"]) == {"/tmp", "/var/tmp", "/data/"}
    assert all("size=" in options for options in host["Tmpfs"].values())
    assert made["Healthcheck"] == {"Test": ["NONE"]}
    assert made["User"] == "1000:1001"
    assert host["MaskedPaths"].count("/proc/kcore") == 1
    assert not {"Privileged", "Devices", "PidMode", "UsernsMode"} & set(host)


def test_a_rootless_podman_gives_the_servers_own_user():
    host = config(replace(ABILITIES, name="Podman", is_rootless=True))["HostConfig"]
    assert host["UsernsMode"] == "keep-id"
    assert any(each.startswith("mask=/proc/kallsyms:") for each in host["SecurityOpt"])
    assert config(replace(ABILITIES, has_user_remap=True))["HostConfig"]["UsernsMode"] == "host"


def test_a_limit_that_an_engine_cannot_set_is_not_asked_for():
    """Podman refuses a container with one; Docker drops it in silence."""
    host = config(ABILITIES.without("memory").without("cpu"))["HostConfig"]
    assert not {"Memory", "MemorySwap", "NanoCpus"} & set(host)
    assert host["PidsLimit"] == 512


def test_sockets_and_mounts_are_where_the_init_looks_for_them():
    mount = Mount(Path("/srv/other"), PurePosixPath("/mnt/other"))
    made = config(egress_socket=Path("/run/x/egress"), sockets={8080: Path("/run/x/model")}, mounts=(mount,))
    found = {each["Target"]: each["Source"] for each in made["HostConfig"]["Mounts"]}
    assert found["/run/rpcshare/3128.sock"] == "/run/x/egress"
    assert found["/run/rpcshare/8080.sock"] == "/run/x/model"
    assert found["/mnt/other"] == "/srv/other"
    assert found["/etc/passwd"] == "/files/passwd"
    assert "/etc/hostname" not in found  # which is given by its name


def test_an_instance_runs_while_its_lock_is_held(tmp_path):
    one, other = InstanceLock(tmp_path), InstanceLock(tmp_path)
    assert one.runs(one.id)
    assert other.runs(one.id)
    one.release()
    assert not other.runs(one.id)
    left = InstanceLock(tmp_path)
    os.close(left._descriptor)  # as by the end of its process
    assert not other.runs(left.id)
    assert [path.name for path in tmp_path.iterdir()] == [f"{other.id}.lock"]
    assert not other.runs("../../etc/passwd")
    assert not other.runs("")
    other.release()
