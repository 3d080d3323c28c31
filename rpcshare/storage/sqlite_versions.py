"""Which versions of SQLite have a fault that matters here."""

import sqlite3

__all__ = ["wal_reset_warning"]

_Version = tuple[int, int, int]

# https://sqlite.org/wal.html#walresetbug: from 3.7.0 to 3.51.2, but for the branches that got the fix.
_FIRST: _Version = (3, 7, 0)
_FIXED: _Version = (3, 51, 3)
_FIXED_ON_BRANCHES = {(3, 44): 6, (3, 50): 7}


def wal_reset_warning(version: _Version = sqlite3.sqlite_version_info) -> str | None:
    """Return what operators should know of the SQLite library in use; None if there is nothing.

    When two connections write and checkpoint at the same moment, its write-ahead log may be taken for copied
    where it is not: then committed transactions are lost, or the file is corrupt.
    """
    fixed_from = _FIXED_ON_BRANCHES.get(version[:2])
    if not _FIRST <= version < _FIXED or (fixed_from is not None and version[2] >= fixed_from):
        return None
    return (
        f"SQLite {'.'.join(map(str, version))} has the WAL-reset fault, by which processes that write to one "
        "store at the same moment may, very rarely, corrupt it (https://sqlite.org/wal.html#walresetbug). "
        "Use 3.51.3 or newer, 3.50.7, 3.44.6, or your distribution's build if that has the fix. Until then "
        "prefer --workers 1, run 'rpcshare keys' and the like while no server runs, and keep backups"
    )
