"""The records of a server (users, the vault) in a backup, and back."""

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from rpcshare.maintenance.export_format import BackupError
from rpcshare.maintenance.records_backup import RestoredRecords, back_up_records, restore_records


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Written by a server that is at work: its newest rows are in the write-ahead log alone."""
    path = tmp_path / "data" / "records.sqlite3"
    path.parent.mkdir()
    return path


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    folder = tmp_path / "backup"
    folder.mkdir()
    return folder


def write(path: Path, name: str) -> sqlite3.Connection:
    server = sqlite3.connect(path, isolation_level=None)
    server.execute("PRAGMA journal_mode = WAL").fetchone()
    server.execute("CREATE TABLE IF NOT EXISTS users (name TEXT)")
    server.execute("INSERT INTO users VALUES (?)", (name,))
    return server


def names(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM users")]


def test_what_a_server_at_work_has_written_comes_back_elsewhere(records, backup, tmp_path):
    with closing(write(records, "alice")):
        assert back_up_records(records, backup)
    restored = tmp_path / "new" / "records.sqlite3"
    assert restore_records(backup, restored) is RestoredRecords.RESTORED
    assert names(restored) == ["alice"]
    assert restored.stat().st_mode & 0o777 == 0o600
    assert restore_records(backup, restored) is RestoredRecords.UNCHANGED
    assert sorted(path.name for path in restored.parent.iterdir()) == ["records.sqlite3"]


def test_a_server_without_records_has_none_in_its_backup(records, backup):
    assert not back_up_records(records, backup)
    assert list(backup.iterdir()) == []
    assert restore_records(backup, records) is RestoredRecords.NONE


def test_records_that_are_there_are_never_replaced(records, backup, tmp_path):
    with closing(write(records, "alice")):
        back_up_records(records, backup)
    other = tmp_path / "other.sqlite3"
    write(other, "bob").close()
    assert restore_records(backup, other) is RestoredRecords.KEPT
    assert names(other) == ["bob"]


def test_a_copy_that_was_changed_is_not_restored(records, backup, tmp_path):
    with closing(write(records, "alice")):
        back_up_records(records, backup)
    write(backup / "records.sqlite3", "mallory").close()
    with pytest.raises(BackupError, match="checksum"):
        restore_records(backup, tmp_path / "new.sqlite3")
    assert not (tmp_path / "new.sqlite3").exists()


def test_the_checksum_is_read_by_sha256sum(records, backup):
    with closing(write(records, "alice")):
        back_up_records(records, backup)
    assert (backup / "records.sqlite3").stat().st_mode & 0o777 == 0o600
    subprocess.run(["sha256sum", "--check", "--strict", "records.sqlite3.sha256"], cwd=backup, check=True)


def test_a_file_that_is_no_database_is_told(records, backup):
    records.write_text("something else, which is no database" * 100)
    with pytest.raises(BackupError, match="cannot be backed up"):
        back_up_records(records, backup)
