"""The driver ``docker``: the contract of drivers, with each engine that is here, and what is its own."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path, PurePosixPath

import pytest

pytest.importorskip("aiodocker", reason="needs aiodocker: pip install 'rpcshare[docker]'")

from rpcshare.sandbox.docker import DockerDriver
from rpcshare.sandbox.driver import EndReason, Mount, SandboxError, SandboxLimits
from sandbox.driver_contract import FORKS, DriverContract
from sandbox.engines import IMAGE, Engine, docker_engine, host_mounts, image_archive, podman_engine
from sandbox.escape_contract import EscapeContract
from sandbox.places import PYTHON, USER

pytestmark = pytest.mark.slow


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(podman_engine, id="podman"),
        pytest.param(docker_engine, id="docker", marks=pytest.mark.rare),
    ],
)
def engine(request) -> Iterator[Engine]:
    with request.param() as engine:
        if isinstance(engine, str):
            pytest.skip(engine)
        yield engine


@pytest.fixture
async def driver(engine: Engine, tmp_path: Path, monkeypatch) -> AsyncIterator[DockerDriver]:
    """One that has not tried whether it works: the test does."""

    async def probe(_driver: DockerDriver) -> None: ...

    monkeypatch.setattr(DockerDriver, "_probe", probe)
    driver = driver_of(engine, tmp_path)
    await driver.check()
    yield driver
    await driver.close()
    assert engine.containers() == []


def driver_of(engine: Engine, tmp_path: Path, image: str = IMAGE) -> DockerDriver:
    return DockerDriver(image, tmp_path / "state", engine=engine.socket, user=USER, mounts=host_mounts())


class TestContract(DriverContract):
    """By each engine."""


@pytest.mark.rare
class TestEscapes(EscapeContract):
    """By each engine, whose own filter refuses some calls before the sandbox's can tell of them."""

    calls_are_seen = False


async def test_it_tries_a_container_before_it_says_that_it_works(engine, tmp_path):
    driver = driver_of(engine, tmp_path)
    await driver.check()
    assert engine.containers() == []
    await driver.close()


async def test_limits_that_an_engine_claims_and_does_not_set_are_others_to_enforce(
    engine, tmp_path, places, monkeypatch
):
    """As of rootless Podman on control groups of version 1, which leaves them out in silence."""
    monkeypatch.setattr("rpcshare.sandbox.docker_container._group_of", lambda _process, _container: None)
    driver = driver_of(engine, tmp_path)
    await driver.check()
    sandbox = await driver.start(places.python(FORKS, limits=SandboxLimits(processes=40)))
    status = await asyncio.wait_for(sandbox.wait(), 60)
    assert status.reason is EndReason.PROCESSES
    assert status.enforced_by["memory"] == "rlimit and measurement"
    assert status.enforced_by["cpu"] == "nothing"
    await driver.close()


async def test_an_image_without_python_is_named(engine, tmp_path):
    driver = DockerDriver(IMAGE, tmp_path / "state", engine=engine.socket, user=USER)
    with pytest.raises(SandboxError, match=f"image {IMAGE} does not start: .*python3"):
        await driver.check()
    assert engine.containers() == []


async def test_an_image_that_is_nowhere_is_named_with_what_helps(engine, tmp_path):
    driver = driver_of(engine, tmp_path, "localhost:1/nowhere:1")
    with pytest.raises(SandboxError, match=r"localhost:1/nowhere:1 is not there, .* by --agents-image"):
        await driver.check()


async def test_what_lists_containers_tells_nothing_of_the_command(engine, driver, places):
    spec = places.shell("sleep 30", environment={"KEY": "sk-not-to-be-listed"})
    sandbox = await driver.start(spec)
    [listed] = engine.containers()
    shown = engine.call("GET", f"/containers/{listed['Id']}/json").text
    assert "sk-not-to-be-listed" not in shown
    assert "sleep 30" not in shown
    await sandbox.terminate(grace=0.1)


async def test_nothing_is_left_of_a_start_that_fails(engine, driver, places):
    mount = Mount(places.root / "home", PurePosixPath("/proc/own"))
    with pytest.raises(SandboxError, match="could not be started"):
        await driver.start(places.shell("true", mounts=(mount,), port=4096))
    assert engine.containers() == []
    assert list(places.run_dir.iterdir()) == []


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.3])
async def test_nothing_is_left_of_a_start_that_is_cancelled(engine, driver, places, after):
    starting = asyncio.ensure_future(driver.start(places.shell("sleep 360", port=4096)))
    await asyncio.sleep(after)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    if not starting.cancelled():
        await starting.result().terminate(grace=0.1)
    assert engine.containers() == []
    assert list(places.run_dir.iterdir()) == []


async def test_memory_of_a_child_ends_all_of_it(driver, places):
    """Although the command itself would go on. Engines tell of the end of process 1 alone."""
    hog = f"{PYTHON} -c 'a = []\nwhile True: a.append(bytearray(8 << 20))'; sleep 30"
    sandbox = await driver.start(places.shell(hog, limits=SandboxLimits(memory=96 << 20)))
    status = await asyncio.wait_for(sandbox.wait(), 60)
    assert status.reason is EndReason.MEMORY
    assert (status.memory or 0) > 64 << 20


class TestWithoutItsControlGroup:
    """Where the server is in a container itself, it asks the engine what a sandbox uses."""

    @pytest.fixture(autouse=True)
    def unseen(self, monkeypatch):
        monkeypatch.setattr("rpcshare.sandbox.docker_container._visible_process", lambda _: None)

    async def test_processes_without_end_end_it(self, driver, places):
        sandbox = await driver.start(places.python(FORKS, limits=SandboxLimits(processes=40)))
        assert (await asyncio.wait_for(sandbox.wait(), 60)).reason is EndReason.PROCESSES

    async def test_what_it_uses_is_known(self, driver, places):
        sandbox = await driver.start(places.shell("sleep 30"))
        async with asyncio.timeout(30):
            while not sandbox.status.memory:
                await asyncio.sleep(0.1)
        await sandbox.terminate(grace=0.1)


async def test_volumes_of_an_image_count_as_memory_and_its_health_is_not_asked_for(engine, tmp_path, places):
    # Podman takes no tag here, and no check.
    health = ["HEALTHCHECK CMD touch /data/asked"] if engine.name == "Docker" else []
    name = f"localhost/rpcshare-volumes-{engine.name.lower()}"
    made = engine.call(
        "POST",
        "/images/create",
        params={"fromSrc": "-", "repo": name, "tag": "latest", "changes": ["VOLUME /data", *health]},
        content=image_archive(),
        headers={"Content-Type": "application/x-tar"},
    )
    assert made.status_code == 200, made.text
    assert "error" not in made.text
    driver = driver_of(engine, tmp_path, f"{name}:latest")
    await driver.check()
    sandbox = await driver.start(places.shell("grep ' /data ' /proc/mounts; touch /data/x && echo written"))
    status = await asyncio.wait_for(sandbox.wait(), 60)
    assert status.exit_code == 0
    assert sandbox.log_tail().startswith("tmpfs /data")
    await driver.close()
    assert not engine.call("GET", "/volumes").json().get("Volumes")


KILLED = """
import asyncio, sys
from pathlib import Path
from rpcshare.sandbox.docker import DockerDriver
from rpcshare.sandbox.driver import SandboxSpec
from sandbox.engines import IMAGE, host_mounts
async def main():
    root, engine, state = map(Path, sys.argv[1:4])
    user = (int(sys.argv[4]), int(sys.argv[4]))
    driver = DockerDriver(IMAGE, state, engine=engine, user=user, mounts=host_mounts())
    command = ("/bin/sh", "-c", "(setsid sleep 361 &); sleep 362")
    await driver.start(SandboxSpec("killed", command, root / "ws", root / "home", root / "run"))
    print("up", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_sandboxes_end_with_their_server_and_the_next_one_removes_what_is_left(
    engine, places, tmp_path, monkeypatch
):
    arguments = [str(places.root), str(engine.socket), str(tmp_path / "state"), str(USER[0])]
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    killed = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "up\n"
    beside, other = driver_of(engine, tmp_path), driver_of(engine, tmp_path / "other")
    await beside.check()  # another process of that server: what runs there is not its to end
    assert len(engine.containers()) == 1
    killed.kill()
    killed.wait()
    killed.stdout.close()
    async with asyncio.timeout(30):
        while any(each["State"] == "running" for each in engine.containers()):
            await asyncio.sleep(0.05)
    await other.check()  # the container is not of that server
    assert len(engine.containers()) == 1
    await other.close()
    await beside.close()
    await beside.check()
    assert engine.containers() == []
    await beside.close()
    assert list((tmp_path / "state").iterdir()) == []


async def test_a_sandbox_ends_although_its_engine_goes_on_to_take_it_for_running(driver, places, monkeypatch):
    """As Docker does which was restarted while its containers went on."""
    monkeypatch.setattr("rpcshare.sandbox.docker_container._TOLD_SECONDS", 0.2)

    async def never(_container: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("aiodocker.containers.DockerContainer.wait", never)
    sandbox = await driver.start(places.shell("exit 4"))
    status = await asyncio.wait_for(sandbox.wait(), 30)
    assert (status.reason, status.exit_code) == (EndReason.EXITED, 4)


async def test_a_sandbox_ends_as_it_does_while_its_engine_is_gone(tmp_path, places):
    """As when Podman's service is restarted: its containers go on."""
    with podman_engine() as engine:
        if isinstance(engine, str):
            pytest.skip(engine)
        driver = driver_of(engine, tmp_path)
        sandbox = await driver.start(places.shell("until test -f go; do sleep 0.1; done; exit 7"))
        engine.stop()
        (places.workspace / "go").write_text("x\n")
        status = await asyncio.wait_for(sandbox.wait(), 60)
        assert (status.reason, status.exit_code) == (EndReason.EXITED, 7)
        await driver.close()
