"""Which files are opened as a store, and what is said of those that are not."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rpcshare.storage import StoreError
from rpcshare.storage.sqlite_file import open_reader, open_writer

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write all")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@contextmanager
def refused(path: Path, reason: str) -> Iterator[None]:
    with pytest.raises(StoreError) as refusal:
        yield
    message = str(refusal.value)
    assert message.startswith(f"cannot open the store {path}: ")
    assert reason in message
    assert "\n" not in message


def open_and_close(path: Path) -> None:
    open_writer(path, busy_timeout=5).close()


def test_file_and_directory_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "store.db"
    with closing(open_writer(path, busy_timeout=0)):
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


def test_a_directory_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    open_and_close(tmp_path / "store.db")
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with closing(open_writer(path, busy_timeout=0)) as connection:
        assert connection.execute("SELECT * FROM objects").fetchall() == []


def test_several_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    openers = 4
    together = threading.Barrier(openers)

    def open_together(path: Path) -> None:
        together.wait()
        open_and_close(path)

    with ThreadPoolExecutor(openers) as threads:
        for n in range(10):
            list(threads.map(open_together, [tmp_path / str(n) / "store.db"] * openers))


def test_a_reader_cannot_write(path: Path) -> None:
    open_and_close(path)
    with (
        closing(open_reader(path, busy_timeout=0)) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        reader.execute("DELETE FROM objects")


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 100)
    with refused(path, "not a database"):
        open_and_close(path)
    assert path.read_bytes() == b"Dear diary, " * 100


def make_foreign_table(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE objects (name TEXT)")


def mark_as_foreign(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA application_id = 1")
    database.execute("PRAGMA user_version = 1")


@pytest.mark.parametrize("make", [make_foreign_table, mark_as_foreign])
def test_a_database_of_another_program_is_refused_and_left_as_it_is(
    path: Path, make: Callable[[sqlite3.Connection], None]
) -> None:
    with closing(sqlite3.connect(path)) as database:
        make(database)
    content = path.read_bytes()
    with refused(path, "database of another program"):
        open_and_close(path)
    assert path.read_bytes() == content


def test_a_newer_schema_is_refused(path: Path) -> None:
    open_and_close(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 2")
    with refused(path, "a newer rpcshare wrote it (schema 2, this one knows up to 1)"):
        open_and_close(path)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with refused(tmp_path, "unable to open database file"):
        open_and_close(tmp_path)


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "store.db"
    with refused(path, f"{tmp_path}/file is not a directory"):
        open_and_close(path)


def test_a_file_that_stays_locked_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with refused(path, "locked"):
            open_writer(path, busy_timeout=0.05)


@needs_permissions
def test_a_directory_that_cannot_be_entered_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "private"
    directory.mkdir(mode=0)
    with refused(directory / "store.db", "Permission denied"):
        open_and_close(directory / "store.db")


@needs_permissions
def test_a_file_that_may_only_be_read_is_refused(path: Path) -> None:
    open_and_close(path)
    path.chmod(0o400)
    with refused(path, "readonly"):
        open_and_close(path)
