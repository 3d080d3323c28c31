"""A store whose files are taken away from under it: no write is acknowledged that would be gone."""

import asyncio
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rpcshare.storage import SqliteStore, StoreError, sqlite_guard


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.sqlite3"


def _files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}*"))


def _removed(path: Path) -> None:
    for file in _files(path):
        file.unlink()


def _moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _directory_removed(path: Path) -> None:
    shutil.rmtree(path.parent)


def _directory_replaced(path: Path) -> None:
    path.parent.rename(path.parent.with_name("old"))
    shutil.copytree(path.parent.with_name("old"), path.parent)


def _restored_by_renaming(path: Path) -> None:
    shutil.copy(path, path.with_name("backup"))
    path.with_name("backup").replace(path)


def _written_over(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(4096)


def _removed_and_made_anew(path: Path) -> None:
    _removed(path)
    asyncio.run(_made(path))


async def _made(path: Path) -> None:
    await (await SqliteStore.open(path)).close()


def _log_removed(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def _log_size(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


ACCIDENTS: dict[str, Callable[[Path], None]] = {
    "all files removed": _removed,
    "the file removed": lambda path: path.unlink(),
    "the log removed": _log_removed,
    "the index of the log removed": lambda path: Path(f"{path}-shm").unlink(),
    "the file moved away": _moved,
    "the directory removed": _directory_removed,
    "the directory replaced": _directory_replaced,
    "a backup put in its place": _restored_by_renaming,
    "written over by a shorter one": _written_over,
    "removed, and another made": _removed_and_made_anew,
}


@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS.keys())
@pytest.mark.parametrize("write", ["put", "put_new", "delete", "check"])
async def test_no_write_is_acknowledged(path: Path, accident, write: str) -> None:
    store = await SqliteStore.open(path)
    try:
        await store.put("before", b"1" * 100_000)
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint")  # so that there is something in the file
        await store.put("before", b"2")
        await asyncio.to_thread(accident, path)
        writes = {
            "put": lambda: store.put("key", b""),
            "put_new": lambda: store.put("key", b"", if_absent=True),
            "delete": lambda: store.delete(["key"]),
            "check": store.check,
        }
        for _ in range(2):
            with pytest.raises(StoreError, match=r"has been (removed|replaced)") as caught:
                await writes[write]()
            assert "restart the server" in caught.value.reason
            assert str(path.parent) not in caught.value.reason
    finally:
        await store.close()


async def test_what_was_acknowledged_is_there_when_only_the_log_was_removed(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.put("acknowledged", b"")
    _log_removed(path)
    with pytest.raises(StoreError):
        await store.put("another", b"")
    # Without the store's own end, as if it was killed.
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    await store.close()
    with closing(sqlite3.connect(copy)) as found:
        assert ("acknowledged",) in found.execute("SELECT key FROM objects").fetchall()


async def test_it_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = await SqliteStore.open(path)
    _removed(path)
    for _ in range(3):
        with pytest.raises(StoreError):
            await store.put("key", b"")
    await store.close()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "store.sqlite3 has been removed" in record.getMessage()


async def test_files_that_are_back_where_they_were_are_written_again(path: Path) -> None:
    store = await SqliteStore.open(path)
    path.parent.rename(path.parent.with_name("away"))
    with pytest.raises(StoreError):
        await store.put("key", b"1")
    path.parent.with_name("away").rename(path.parent)
    await store.check()
    await store.put("key", b"2")
    await store.close()


async def test_another_process_that_comes_and_goes_is_no_accident(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.put("key", b"1" * 50_000)
    code = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('PRAGMA wal_checkpoint(TRUNCATE)')"
    code += "; c.execute('DELETE FROM objects'); c.commit(); c.close()"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
    await store.put("key", b"2")
    await store.check()
    await store.close()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_vacuum_by_somebody_else_is_no_accident(path: Path, times: int) -> None:
    store = await SqliteStore.open(path)
    for number in range(times):
        await store.put("large", b"1" * 2_000_000)
        await store.put("large", b"2")
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint")
            before = await asyncio.to_thread(lambda: path.stat().st_size)
            other.execute("VACUUM")
            other.execute("PRAGMA wal_checkpoint")
        assert await asyncio.to_thread(lambda: path.stat().st_size) < before
        await store.check()
        await store.put(f"key {number}", b"")
    await store.close()


async def test_a_file_that_is_written_over_after_a_vacuum_is_one(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.put("large", b"1" * 2_000_000)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint")
        await store.put("large", b"2")
        other.execute("VACUUM")
        other.execute("PRAGMA wal_checkpoint")
    await store.put("key", b"")
    _written_over(path)
    with pytest.raises(StoreError, match="replaced or written over"):
        await store.put("key", b"")
    await store.close()


class TestRoom:
    async def test_a_full_disk_is_no_place_to_write(self, path: Path, monkeypatch) -> None:
        store = await SqliteStore.open(path)
        await store.check()
        is_full = True
        real = os.statvfs

        def statvfs(name):
            found = list(real(name))
            if is_full:
                found[2:5] = [found[2], 3, 3]  # blocks that are free, and to whom
            return os.statvfs_result(found)

        monkeypatch.setattr(sqlite_guard.os, "statvfs", statvfs)
        with pytest.raises(StoreError, match="the disk is full") as caught:
            await store.check()
        assert str(path) not in caught.value.reason
        is_full = False
        await store.check()
        await store.close()

    async def test_a_file_that_cannot_grow_fails_the_check(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        await store.put("key", b"")
        await store._writer.run(lambda connection: connection.execute("PRAGMA query_only = ON").fetchone())
        store._written_at = -10.0
        with pytest.raises(StoreError) as caught:
            await store.check()
        assert caught.value.reason == "attempt to write a readonly database"
        await store.close()

    async def test_checks_write_once_a_second(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        await store.check()
        size = _log_size(path)
        for _ in range(20):
            store._written_at += 1.0  # the second is not over, however slow this machine is
            await store.check()
        assert _log_size(path) == size
        await store.close()

    async def test_its_usage_is_that_of_its_files(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        await store.put("key", bytes(100_000))
        usage = store.usage()
        assert usage.log_bytes > 100_000
        assert usage.file_bytes == await asyncio.to_thread(lambda: path.stat().st_size)
        assert usage.free_bytes > 0
        await store.close()

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [("_LITTLE_ROOM", 2**70, "little room is left"), ("_LONG_LOG", 1, "the write-ahead log")],
    )
    async def test_operators_are_warned_once(
        self, path: Path, monkeypatch, caplog: pytest.LogCaptureFixture, name: str, value: int, words: str
    ) -> None:
        usual = getattr(sqlite_guard, name)
        monkeypatch.setattr(sqlite_guard, name, value)
        store = await SqliteStore.open(path)
        await store.put("key", b"")
        for _ in range(3):
            store.usage()
        assert caplog.text.lower().count(words) == 1
        monkeypatch.setattr(sqlite_guard, name, usual)  # it is better
        store.usage()
        monkeypatch.setattr(sqlite_guard, name, value)
        store.usage()
        assert caplog.text.lower().count(words) == 2
        await store.close()
