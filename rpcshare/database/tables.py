"""The tables, as queries name them. The scripts in ``migrations/versions`` make them."""

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, String, Table, Text

__all__ = ["leases", "metadata", "progress", "shares", "text_index", "texts"]

metadata = MetaData()

shares = Table(
    "shares",
    metadata,
    Column("id", String, primary_key=True),
    Column("generation", String, nullable=False),
    Column("head_etag", String, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column("is_deleted", Boolean, nullable=False),
    Column("owner", String),
    Column("expires_at", BigInteger),
    Column("title", String, nullable=False),
    Column("reverted_to", String, nullable=False),
)
"""One row for each share that has been projected: up to which entry of its log, and of which head."""

texts = Table(
    "texts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("share_id", String, nullable=False),
    Column("item", String, nullable=False),
    Column("message_id", String),
    Column("part_id", String),
    Column("role", String, nullable=False),
    Column("tool", String, nullable=False),
    Column("files", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    Index("ix_texts_share", "share_id", "item"),
)
"""What each searchable text is of. Ids are in the order of time: milliseconds, then 20 bits at random."""

text_index = Table(
    "text_index",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
)
"""The texts themselves. PostgreSQL's has a tsvector ``words`` besides; SQLite's is an FTS5 table, whose
``rowid`` is the id, and which has ``owner`` besides."""

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("until", BigInteger, nullable=False),
)
"""Work that one process at a time does. Times are milliseconds since the epoch."""

progress = Table(
    "progress",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)
"""How far work has got that can be resumed."""
