"""Where a database is, and what can be said of it before it is opened."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

__all__ = [
    "REVISIONS",
    "DatabaseError",
    "DatabaseLocation",
    "NewerSchemaError",
    "QueryTooLongError",
    "check_not_newer",
    "parse_location",
    "refuse_unknown",
]

REVISIONS = ("0001", "0002")
"""The revisions of the schema, the newest last: the scripts in ``migrations/versions``."""


class DatabaseError(Exception):
    """The database could not do what was asked: unreachable, full, locked or broken."""


class QueryTooLongError(DatabaseError):
    """A query was ended because it took longer than it may."""


class NewerSchemaError(DatabaseError):
    """A newer version of rpcshare has changed the schema to one that this version does not know."""


class DatabaseLocation(NamedTuple):
    """Where a database is."""

    url: str
    """Of one in PostgreSQL, as SQLAlchemy takes it. May hold a password."""
    path: Path | None
    """The file of a SQLite database; None: it is in PostgreSQL."""

    @property
    def shown(self) -> str:
        """What it is called in messages, without a password."""
        if self.path is not None:
            return str(self.path)
        parts = urlsplit(self.url)
        return f"postgresql://{parts.hostname or ''}{parts.path}"

    def __repr__(self) -> str:
        """Leave out the password."""
        return f"{type(self).__name__}({self.shown!r})"


def parse_location(url: str) -> DatabaseLocation:
    """Return the database that ``url`` names.

    Raises:
        ValueError: it names none; the message says what it has to be.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() == "sqlite" and rest.startswith("/") and len(rest) > 1:
        path = Path(unquote(rest.removeprefix("/")))
        return DatabaseLocation("", path)
    if separator and scheme.lower() in ("postgresql", "postgres") and urlsplit(url).path.strip("/"):
        parts = urlsplit(url)
        # libpq's name, which is in everybody's URL, and asyncpg's.
        names = {"sslmode": "ssl"}
        query = urlencode([(names.get(name, name), value) for name, value in parse_qsl(parts.query)])
        return DatabaseLocation(urlunsplit(("postgresql+asyncpg", parts.netloc, parts.path, query, "")), None)
    raise ValueError("must be sqlite:///PATH or postgresql://USER@HOST/DATABASE")


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
