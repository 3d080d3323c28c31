"""Processes that write to one SQLite file all the time, and take turns at it."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rpcshare.storage import SqliteStore, StoreError
from rpcshare.storage.fair_lock import FairLock


@pytest.fixture
def new_turns(tmp_path: Path):
    made: list[FairLock] = []

    def make() -> FairLock:
        made.append(FairLock(tmp_path / "store.sqlite3"))
        return made[-1]

    yield make
    for turns in made:
        turns.close()


def test_one_has_a_turn_at_a_time(new_turns: Callable[[], FairLock]) -> None:
    inside: list[str] = []
    seen: list[list[str]] = []

    def write(name: str, turns: FairLock) -> None:
        for _ in range(50):
            with turns:
                inside.append(name)
                seen.append(list(inside))
                inside.remove(name)

    writers = [threading.Thread(target=write, args=(name, new_turns())) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(seen) == 150
    assert all(len(names) == 1 for names in seen)


def test_who_waits_comes_before_who_has_just_written(new_turns: Callable[[], FairLock]) -> None:
    busy, other = new_turns(), new_turns()
    order: list[str] = []
    is_waiting, has_written = threading.Event(), threading.Event()

    def write() -> None:
        is_waiting.set()
        with other:
            order.append("waited")
        has_written.set()

    waiting = threading.Thread(target=write)
    with busy:
        waiting.start()
        is_waiting.wait()
        # It is behind the turn once nobody else gets behind it.
        while _gets_next(busy):
            pass
    with busy:
        order.append("again")
    waiting.join()
    assert order == ["waited", "again"]


def _gets_next(turns: FairLock) -> bool:
    import fcntl

    try:
        fcntl.flock(turns._next, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(turns._next, fcntl.LOCK_UN)
    return True


HOLDER = """
import sys
from pathlib import Path
from rpcshare.storage.fair_lock import FairLock
with FairLock(Path(sys.argv[1])):
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process, which has its turn and does not end it."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "store.sqlite3")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        yield process
        process.kill()


async def test_a_process_that_dies_in_its_turn_holds_nobody_up(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpcshare.storage.fair_lock._PATIENCE", 3600.0)
    store = await SqliteStore.open(tmp_path / "store.sqlite3", takes_turns=True)
    os.kill(holder.pid, signal.SIGKILL)
    await store.put("key", b"body")
    await store.close()


async def test_a_process_that_does_not_go_on_is_passed_by(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpcshare.storage.fair_lock._PATIENCE", 0.1)
    store = await SqliteStore.open(tmp_path / "store.sqlite3", takes_turns=True)
    await store.put("key", b"body")
    await store.close()
    assert holder.poll() is None


def test_the_files_are_their_owners_alone(new_turns: Callable[[], FairLock], tmp_path: Path) -> None:
    new_turns()
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "store.sqlite3-next": 0o600,
        "store.sqlite3-turn": 0o600,
    }


async def test_a_store_that_cannot_take_turns_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3-turn").mkdir()
    with pytest.raises(StoreError, match=r"cannot open the store .*: Is a directory"):
        await SqliteStore.open(tmp_path / "store.sqlite3", takes_turns=True)
    with sqlite3.connect(tmp_path / "store.sqlite3") as left:
        left.execute("BEGIN EXCLUSIVE")  # nobody has it open
    left.close()
