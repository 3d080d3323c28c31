"""A connection to SQLite that makes few cursors.

A connection keeps a weak reference to each cursor that it made, up to 200, though these are gone. Made at
a time of much memory, each of these keeps the megabyte around it from going back to the system. One cursor
that is used again has one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

__all__ = ["SqliteConnection"]


class SqliteConnection(sqlite3.Connection):
    """A connection whose :meth:`execute` always uses one cursor, and whose closed cursors are used again.

    So what one call of ``execute`` returned is read before the next. Whoever reads several results at a
    time makes cursors and closes them.
    """

    closed_cursor: _Cursor | None = None
    _executing: sqlite3.Cursor | None = None

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:  # noqa: ANN401 -- as sqlite3 has it
        """Execute a statement; return the one cursor, which the next call uses again."""
        return self._one_cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        """Execute a statement once for each row of parameters."""
        return self._one_cursor().executemany(sql, parameters)

    def cursor(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 -- as sqlite3 has it
        """Return a cursor as :meth:`sqlite3.Connection.cursor` does."""
        if args or options or self.closed_cursor is None:
            return super().cursor(*args or (_Cursor,), **options)
        cursor, self.closed_cursor = self.closed_cursor, None
        cursor.__init__(self)  # type: ignore[misc]  # opens it again
        return cursor

    def close(self) -> None:
        """Close it; statements that its cursors have would keep the file open."""
        if self._executing is not None:
            self._executing.close()
        super().close()

    def _one_cursor(self) -> sqlite3.Cursor:
        if self._executing is None:
            self._executing = super().cursor()
        return self._executing


class _Cursor(sqlite3.Cursor):
    connection: SqliteConnection

    def close(self) -> None:
        super().close()
        self.connection.closed_cursor = self
