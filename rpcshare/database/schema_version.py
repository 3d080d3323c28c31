"""Whether this version knows the schema of a database, which a newer version may have changed."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from rpcshare.database.location import DatabaseError, DatabaseLocation, NewerSchemaError

__all__ = ["PROJECTION", "RECORDS", "REVISIONS", "Schema", "check_not_newer", "refuse_unknown"]

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""The revisions of the projection, the newest last: the scripts in ``migrations/versions``."""

RECORD_REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""Those of the records: the scripts in ``records_migrations/versions``."""


class Schema(NamedTuple):
    """One of the two kinds of content: each is in a file, or in a schema of PostgreSQL, of its own."""

    migrations: Path
    revisions: tuple[str, ...]
    name: str
    """Of PostgreSQL's schema; empty: the one that the connection begins with."""
    is_durable: bool
    """Whether what was committed must outlive a power failure."""
    remedy: str
    """What to do about a file that is broken."""
    sqlite: Path | None = None
    """Statements, with empty lines between, that make at once in a new file what all migrations make."""


PROJECTION = Schema(
    Path(__file__).parent / "migrations",
    REVISIONS,
    name="",
    is_durable=False,
    remedy="It can be made again: remove it, and start the server",
    sqlite=Path(__file__).parent / "migrations/sqlite_schema.sql",
)
"""Made from the store of shares, and made again from there at any time."""

RECORDS = Schema(
    Path(__file__).parent / "records_migrations",
    RECORD_REVISIONS,
    name="rpcshare_records",
    is_durable=True,
    remedy="It holds the users of this server: put a backup in its place",
)
"""What is nowhere else (:mod:`rpcshare.database.records`): never removed to be made again."""


def check_not_newer(location: DatabaseLocation, schema: Schema = PROJECTION) -> None:
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
        raise DatabaseError(f"{location.shown}: {exc}. {schema.remedy}") from exc
    refuse_unknown(location, [str(revision) for (revision,) in found], schema)


def refuse_unknown(location: DatabaseLocation, found: list[str], schema: Schema = PROJECTION) -> None:
    """Return if all revisions ``found`` in a database are known.

    Raises:
        NewerSchemaError: one is not.
    """
    for revision in found:
        if revision not in schema.revisions:
            raise NewerSchemaError(
                f"the database {location.shown} has the schema {revision} of a newer rpcshare; this version "
                f"knows {schema.revisions[-1]}. Update this server, or name another --database"
            )
