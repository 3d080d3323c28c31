"""What a killed process leaves in the directory of temporary files, and what the next one removes of it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rpcshare import process_directories
from rpcshare.process_directories import process_directory, remove_left_behind
from support.running_server import RunningServer

LEAVES = """
import sys
from pathlib import Path
from rpcshare.process_directories import process_directory

made = [process_directory(kind) for kind in ("run", "models")]
Path(made[0].name, "socket").write_text("")
Path(made[1].name, "deep").mkdir()
print(*(each.name for each in made), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process, and those that it starts, keep theirs apart from those of other tests."""
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    monkeypatch.setattr(process_directories, "_token", None)


@contextmanager
def process_with_directories() -> Iterator[tuple[subprocess.Popen[str], list[Path]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", LEAVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, [Path(name) for name in process.stdout.readline().split()]
    finally:
        process.kill()
        process.communicate()


def left() -> list[Path]:
    return list(Path(tempfile.gettempdir()).iterdir())


def test_what_a_killed_process_has_left_is_removed() -> None:
    with process_with_directories() as (process, directories):
        process.kill()
        process.wait()
        assert all(each.is_dir() for each in directories)
        assert remove_left_behind() == 2
    assert left() == []


def test_what_a_living_process_has_stays() -> None:
    with process_with_directories() as (_, directories), process_directory("run") as own:
        assert remove_left_behind() == 0
        assert all(each.is_dir() for each in (*directories, Path(own)))


def test_a_process_that_ends_leaves_nothing() -> None:
    with process_with_directories() as (process, _):
        process.communicate("")
    assert left() == []


def test_a_forked_process_has_a_lock_of_its_own() -> None:
    own = process_directory("run")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        made = process_directory("run")
        os.write(writer, made.name.encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writer)
    name = os.read(reader, 1000).decode()
    os.close(reader)
    assert remove_left_behind() == 1
    assert not Path(name).exists()
    assert Path(own.name).is_dir()
    own.cleanup()


@pytest.mark.parametrize("what", ["link", "file", "fifo"])
def test_nothing_is_removed_but_directories(what: str, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.mkdir()
    (target / "file").write_text("")
    trap = Path(tempfile.gettempdir(), "rpcs-0123abcd-run-trap")
    match what:
        case "link":
            trap.symlink_to(target)
        case "file":
            trap.write_text("")
        case _:
            os.mkfifo(trap)
    trap.with_name("rpcs-0123abcd.lock").write_text("")
    assert remove_left_behind() == 0
    assert (target / "file").exists()
    assert trap.is_symlink() or trap.exists()


@pytest.mark.parametrize("what", ["link", "fifo", "directory"])
def test_a_lock_that_is_no_file_ends_nothing(what: str, tmp_path: Path) -> None:
    kept = Path(tempfile.gettempdir(), "rpcs-0123abcd-run-kept")
    kept.mkdir()
    lock = kept.with_name("rpcs-0123abcd.lock")
    match what:
        case "link":
            (tmp_path / "free").write_text("")
            lock.symlink_to(tmp_path / "free")
        case "fifo":
            os.mkfifo(lock)
        case _:
            lock.mkdir()
    assert remove_left_behind() == 0
    assert kept.is_dir()


def test_what_is_anothers_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with process_with_directories() as (process, directories):
        process.kill()
        process.wait()
        own = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        assert remove_left_behind() == 0
        assert all(each.is_dir() for each in directories)


def test_a_server_removes_it_when_it_starts(tmp_path: Path) -> None:
    with process_with_directories() as (process, _):
        process.kill()
        process.wait()
        with RunningServer(tmp_path / "data", "--store=memory://") as server:
            server.stop()
    assert left() == []
