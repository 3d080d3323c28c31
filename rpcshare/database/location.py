"""Where a database is, and how it fails."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

__all__ = [
    "DatabaseError",
    "DatabaseLocation",
    "InvalidValueError",
    "NewerSchemaError",
    "QueryTooLongError",
    "parse_location",
]


class DatabaseError(Exception):
    """The database could not do what was asked: unreachable, full, locked or broken."""


class InvalidValueError(DatabaseError):
    """A value is one that the database does not take. It answers, and takes others."""


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
