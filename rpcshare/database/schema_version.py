"""Whether this version knows the schema of a database, which a newer version may have changed."""

import sqlite3
from contextlib import closing
from urllib.parse import quote

from rpcshare.database.location import DatabaseError, DatabaseLocation, NewerSchemaError

__all__ = ["REVISIONS", "check_not_newer", "refuse_unknown"]

REVISIONS = ("0001", "0002", "0003")
"""The revisions of the schema, the newest last: the scripts in ``migrations/versions``."""


def check_not_newer(location: DatabaseLocation) -> None:
    """Return if this version knows the schema of a database in a file, before that is opened.

    Raises:
        NewerSchemaError: it does not.
        DatabaseError: the file is no database, or cannot be read.
    """
    if location.path is None or not location.path.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(location.path))}?mode=ro", uri=True)) as connection:
            # SQLite opens a file of the WAL mode for reading alone only where its directory can be written.
            known = connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
            ).fetchall()
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall() if known else []
    except sqlite3.OperationalError:
        return  # it is in use, or cannot be opened: opening it says so
    except sqlite3.DatabaseError as exc:
        raise DatabaseError(
            f"{location.shown}: {exc}. It can be made again: remove it, and start the server"
        ) from exc
    refuse_unknown(location, [str(revision) for (revision,) in found])


def refuse_unknown(location: DatabaseLocation, found: list[str]) -> None:
    """Return if all revisions ``found`` in a database are known.

    Raises:
        NewerSchemaError: one is not.
    """
    for revision in found:
        if revision not in REVISIONS:
            raise NewerSchemaError(
                f"the database {location.shown} has the schema {revision} of a newer rpcshare; this version "
                f"knows {REVISIONS[-1]}. Update this server, or name another --database"
            )
