"""The driver ``local``: the contract of drivers, and what is its own."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rpcshare.sandbox.bubblewrap import BubblewrapDriver
from rpcshare.sandbox.cgroups import ControlGroups
from rpcshare.sandbox.driver import EndReason, SandboxError, SandboxLimits
from sandbox.driver_contract import FORKS, DriverContract
from sandbox.places import PYTHON, USER

pytestmark = pytest.mark.slow


class TestContract(DriverContract):
    """By control groups where there are any."""


async def test_without_bubblewrap_it_refuses_and_says_what_helps(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="install the package bubblewrap"):
        await BubblewrapDriver().check()


async def test_without_bubblewrap_an_order_of_the_operator_runs_programs_all_the_same(
    monkeypatch, tmp_path, places
):
    monkeypatch.setenv("PATH", str(tmp_path))
    driver = BubblewrapDriver(unsafe=True)
    await driver.check()
    assert not driver.is_isolated
    sandbox = await driver.start(places.shell("pwd; echo $HOME"))
    status = await asyncio.wait_for(sandbox.wait(), 20)
    assert (status.reason, status.exit_code) == (EndReason.EXITED, 0)
    assert sandbox.log_tail().splitlines() == [str(places.workspace), str(places.home)]
    await driver.close()


async def test_a_bubblewrap_that_is_too_old_is_refused(tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho bubblewrap 0.4.1\n")
    fake.chmod(0o755)
    with pytest.raises(SandboxError, match="too old"):
        await BubblewrapDriver(program=str(fake)).check()


async def test_why_bubblewrap_does_not_run_is_told_in_its_words(tmp_path):
    """As where AppArmor keeps users who are not root from having a network of their own."""
    fake = tmp_path / "bwrap"
    said = "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted"
    fake.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec echo bubblewrap 0.11.0\necho "{said}" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    with pytest.raises(SandboxError, match="does not run here: bwrap: loopback: Failed RTM_NEWADDR"):
        await BubblewrapDriver(program=str(fake)).check()
    unsafe = BubblewrapDriver(program=str(fake), unsafe=True)
    await unsafe.check()
    assert not unsafe.is_isolated


async def test_a_data_directory_that_sandboxes_would_see_is_refused(driver):
    with pytest.raises(SandboxError, match="move it elsewhere"):
        await BubblewrapDriver(hidden=[Path("/usr/share")]).check()


async def test_a_name_is_never_a_path(driver, places):
    with pytest.raises(SandboxError, match="name"):
        await driver.start(places.shell("true", name="../other"))


async def test_when_bubblewrap_alone_is_killed_the_rest_ends_too(driver, places):
    sandbox = await driver.start(places.shell("setsid sleep 352 & sleep 353"))
    sandbox._process.kill()
    status = await asyncio.wait_for(sandbox.wait(), 30)
    assert status.reason is EndReason.LOST
    assert _sleepers() == []


class TestWithoutControlGroups:
    """Where there is no control group, resource limits and measurements take their place."""

    @pytest.fixture
    async def bare(self, driver):
        bare = BubblewrapDriver(user=USER, groups=ControlGroups({}, is_version_2=False))
        await bare.check()
        yield bare
        await bare.close()

    async def test_memory_ends_it(self, bare, places):
        hog = "import time\nx = bytes(range(256)) * (40 << 12)\ntime.sleep(60)"
        script = f"for i in 1 2 3 4 5 6; do {PYTHON} -c '{hog}' & done; wait"
        sandbox = await bare.start(places.shell(script, limits=SandboxLimits(memory=150 << 20)))
        status = await asyncio.wait_for(sandbox.wait(), 60)
        assert status.reason is EndReason.MEMORY
        assert status.enforced_by["memory"] == "rlimit and measurement"

    async def test_one_process_is_refused_more_memory(self, bare, places):
        script = "bytearray(1 << 30)"
        sandbox = await bare.start(places.python(script, limits=SandboxLimits(memory=96 << 20)))
        assert (await asyncio.wait_for(sandbox.wait(), 60)).exit_code == 1
        assert "MemoryError" in sandbox.log_tail()

    async def test_processes_without_end_end_it(self, bare, places):
        sandbox = await bare.start(places.python(FORKS, limits=SandboxLimits(processes=40)))
        assert (await asyncio.wait_for(sandbox.wait(), 60)).reason is EndReason.PROCESSES


async def test_nothing_is_left_of_the_control_groups(driver, places):
    parents = ControlGroups.find().parents
    if not parents:
        pytest.skip("there are no control groups that this user may make")
    sandbox = await driver.start(places.shell("sleep 30", name="groups-left"))
    for parent in parents.values():
        assert list(parent.glob("rpcshare-sandbox-groups-left-*"))
    await sandbox.terminate(grace=0.1)
    for parent in parents.values():
        assert not list(parent.glob("rpcshare-sandbox-groups-left-*"))


async def test_sandboxes_end_when_their_server_is_killed(driver, places):
    script = f"""
import asyncio, sys
from pathlib import Path
from rpcshare.sandbox.bubblewrap import BubblewrapDriver
from rpcshare.sandbox.driver import SandboxSpec
async def main():
    root = Path({str(places.root)!r})
    driver = BubblewrapDriver(user={USER!r})
    command = ("/bin/sh", "-c", "(setsid sleep 351 &); sleep 350")
    await driver.start(SandboxSpec("killed", command, root / "ws", root / "home", root / "run"))
    print("up", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    process.stdout.close()
    async with asyncio.timeout(20):
        while _sleepers():
            await asyncio.sleep(0.05)
    groups = ControlGroups.find()
    async with asyncio.timeout(20):
        while left := [each for parent in groups.parents.values() for each in parent.glob("*-killed-*")]:
            for each in left:
                os.utime(each, (1, 1))
            groups.remove_left()  # as the next server does
            await asyncio.sleep(0.05)


def _sleepers() -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"sleep\x0035" in path.read_bytes():
                found.append(path)
        except OSError:
            continue
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_a_server_that_is_not_root_has_sandboxes_too(driver, places):
    """By a namespace for users; with the system's Python, as this one may be where others cannot read."""
    python = "/usr/bin/python3"
    if not os.access(python, os.X_OK):
        pytest.skip("there is no Python of the system")
    package = Path(__file__).parents[2] / "rpcshare"
    places.root.chmod(0o755)
    copied = places.root / "code" / "rpcshare"
    copied.mkdir(parents=True)
    (copied / "__init__.py").write_text("")
    what_it_needs = [package / "sandbox", package / "process_directories.py"]
    subprocess.run(["/bin/cp", "-r", *what_it_needs, copied], check=True)
    os.chown(places.run_dir, *USER)
    script = f"""
import asyncio, os, sys
sys.path.insert(0, {str(places.root / "code")!r})
from pathlib import Path
from rpcshare.sandbox.bubblewrap import BubblewrapDriver
from rpcshare.sandbox.driver import SandboxError, SandboxSpec
async def main():
    root = Path({str(places.root)!r})
    driver = BubblewrapDriver()
    try:
        await driver.check()
    except SandboxError as exc:
        print("skip:", exc)
        return
    command = ("/bin/sh", "-c", "id -u; unshare -r true; touch made; grep CapEff /proc/self/status; ls /")
    names = []
    spec = SandboxSpec("own", command, root / "ws", root / "home", root / "run", on_refused=names.append)
    sandbox = await driver.start(spec)
    print(await sandbox.wait(), names)
    print(sandbox.log_tail())
    await driver.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [python, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        user=USER[0],
        group=USER[1],
        extra_groups=[],
        cwd="/",
    )
    if done.stdout.startswith("skip:"):
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "['unshare']" in done.stdout
    assert "CapEff:\t0000000000000000" in done.stdout
    assert "\n1000\n" in done.stdout
    assert (places.workspace / "made").exists()
