"""The server's database: SQLite in the data directory, or PostgreSQL for several servers.

What is in it now is a projection: made from the store of shares, and made again from there at any time.

SQLAlchemy takes half a second to import. So it is imported by what opens a database, and not from here.
"""

from rpcshare.database.location import (
    DatabaseError,
    DatabaseLocation,
    NewerSchemaError,
    QueryTooLongError,
    parse_location,
)
from rpcshare.database.schema_version import check_not_newer

__all__ = [
    "DatabaseError",
    "DatabaseLocation",
    "NewerSchemaError",
    "QueryTooLongError",
    "check_not_newer",
    "parse_location",
]
