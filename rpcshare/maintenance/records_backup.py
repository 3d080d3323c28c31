"""The records (users, the vault) of a server beside the shares of a backup.

``records.sqlite3`` is a copy of the database as it was at one moment; ``records.sqlite3.sha256`` has its
checksum, as ``sha256sum --check`` reads it. Values of the vault are encrypted in it, and no key is beside it.
"""

import hashlib
import os
import sqlite3
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from rpcshare.maintenance.export_format import BackupError

__all__ = ["RestoredRecords", "back_up_records", "restore_records"]

_NAME = "records.sqlite3"
_SUM = f"{_NAME}.sha256"


class RestoredRecords(StrEnum):
    """What became of the records of a backup."""

    NONE = "none"
    """It has none."""
    RESTORED = "restored"
    UNCHANGED = "unchanged"
    """The data directory has the same."""
    KEPT = "kept"
    """The data directory has others, which are never replaced."""


def back_up_records(records: Path, folder: Path) -> bool:
    """Copy the database of records into the folder of a backup, while servers write to it.

    Returns:
        Whether there is one.

    Raises:
        BackupError: it cannot be read, or not be written.
    """
    if not records.exists():
        return False
    copy = folder / _NAME
    try:
        copy.touch(mode=0o600)
        source = sqlite3.connect(f"file:{quote(str(records))}?mode=ro", uri=True)
        with closing(source), closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, which needs no other
        (folder / _SUM).write_text(f"{_digest(copy)}  {_NAME}\n", "ascii")
    except (OSError, sqlite3.Error) as exc:
        raise BackupError(f"the records in {records} cannot be backed up: {exc}") from exc
    os.sync()
    return True


def restore_records(folder: Path, records: Path) -> RestoredRecords:
    """Put the records of a backup into a data directory that has none.

    Raises:
        BackupError: they are not what they were, or cannot be written.
    """
    copy = folder / _NAME
    if not copy.exists():
        return RestoredRecords.NONE
    draft = records.with_name(f".{records.name}.restored")
    try:
        if (folder / _SUM).read_text("ascii") != f"{_digest(copy)}  {_NAME}\n":
            raise BackupError(f"{copy} is not what it was: its checksum is another")
        if records.exists():
            is_same = records.read_bytes() == copy.read_bytes()
            return RestoredRecords.UNCHANGED if is_same else RestoredRecords.KEPT
        records.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_bytes(copy.read_bytes())
        os.sync()
        records.hardlink_to(draft)  # which never replaces one that a server has made meanwhile
        draft.unlink()
    except (OSError, UnicodeDecodeError) as exc:
        raise BackupError(f"the records in {copy} cannot be restored: {exc}") from exc
    return RestoredRecords.RESTORED


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
