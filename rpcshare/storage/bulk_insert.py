"""Objects that must be new, as the entries of logs are: many of them in one SQL statement.

A statement by itself is a transaction, and the thread that runs it needs Python's interpreter only before
and after. For each further statement it would have to wait until a busy event loop lets go of that.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from rpcshare.storage.store import PreconditionFailedError

__all__ = ["MOST_AT_ONCE", "NewObject", "insert_all"]

MOST_AT_ONCE = 128
"""Objects in one statement. SQLite takes far more, but keeps a prepared one for each number of them."""


class NewObject(msgspec.Struct, frozen=True):
    """A write at a key where there must be no object."""

    key: str
    body: bytes

    def __call__(self, connection: sqlite3.Connection) -> str:
        """Write it inside a transaction, and return its etag.

        Raises:
            PreconditionFailedError: there is an object at the key.
        """
        cursor = connection.execute(f"{_statement(1)} ON CONFLICT (key) DO NOTHING", (self.key, self.body))
        if cursor.rowcount == 0:
            raise PreconditionFailedError(f"there is an object at {self.key}")
        return str(cursor.lastrowid)


def insert_all(connection: sqlite3.Connection, new: Sequence[NewObject]) -> list[str]:
    """Write and commit all of ``new``, at most MOST_AT_ONCE, and return their etags.

    Raises:
        sqlite3.IntegrityError: one of them is not new; none has been written.
    """
    values = [value for each in new for value in (each.key, each.body)]
    cursor = connection.execute(_statement(len(new)), values)
    last = cursor.lastrowid or 0
    # AUTOINCREMENT: each row has the id behind that of the row before.
    return [str(row_id) for row_id in range(last - len(new) + 1, last + 1)]


@lru_cache(MOST_AT_ONCE)
def _statement(rows: int) -> str:
    return f"INSERT INTO objects (key, body) VALUES {', '.join(['(?, ?)'] * rows)}"  # noqa: S608 -- placeholders
