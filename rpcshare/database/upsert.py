"""INSERT … ON CONFLICT, which both databases have, and SQLAlchemy has once for each."""

from typing import TYPE_CHECKING

from sqlalchemy import Table

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["insert"]


def insert(table: Table, *, is_sqlite: bool) -> "sqlite.Insert | postgresql.Insert":
    """Return an insertion into ``table`` that may say what to do where a row is there already."""
    # One of them: that of PostgreSQL takes long to import.
    if is_sqlite:
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table)
