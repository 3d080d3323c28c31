"""The server's database: SQLite in the data directory, or PostgreSQL for several servers.

What is in it is of two kinds. The **projection** is made from the store of shares, and made again from there
at any time. **Records** (users, and what else is nowhere else) are apart: in a file ``records.sqlite3`` of
the data directory, or in a schema ``rpcshare_records`` of PostgreSQL. Nothing that makes the projection anew
touches them.

SQLAlchemy takes half a second to import. So it is imported by what opens a database, and not from here.
"""

from rpcshare.database.location import (
    DatabaseError,
    DatabaseLocation,
    InvalidValueError,
    NewerSchemaError,
    QueryTooLongError,
    parse_location,
)
from rpcshare.database.schema_version import check_not_newer

__all__ = [
    "DatabaseError",
    "DatabaseLocation",
    "InvalidValueError",
    "NewerSchemaError",
    "QueryTooLongError",
    "check_not_newer",
    "parse_location",
]
