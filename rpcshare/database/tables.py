"""The tables, as queries name them. The scripts in ``migrations/versions`` make them.

``migrations/sqlite_schema.sql`` has what all of these make in SQLite. Nothing here names an option of
PostgreSQL: SQLAlchemy would import that dialect, which SQLite's users need not wait for.
"""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, text

__all__ = [
    "FOR_ORGANIZATION",
    "PRIVATE",
    "catalogue",
    "catalogue_counts",
    "leases",
    "metadata",
    "progress",
    "shares",
    "text_index",
    "texts",
]

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
    Column("log_etag", String),
    Column("is_ahead", Boolean, nullable=False),
)
"""One row for each share that has been projected: up to which entry of its log, and of which head.

``log_etag`` is that of the entry, or of the snapshot in its place; NULL where it is not known. ``is_ahead``:
something of later entries, or of a later head, is in the database, as a row of the catalogue may be.
"""

catalogue = Table(
    "catalogue",
    metadata,
    # In SQLite the rowid itself, which the index of words refers to.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("id", String, nullable=False, unique=True),
    Column("generation", String, nullable=False),
    Column("session_id", String, nullable=False),
    Column("owner", String),
    Column("organization", String),
    Column("title", String, nullable=False),
    Column("directory", String, nullable=False),
    Column("message_count", BigInteger, nullable=False),
    Column("part_count", BigInteger, nullable=False),
    Column("diff_count", BigInteger, nullable=False),
    Column("model_count", BigInteger, nullable=False),
    Column("sync_count", BigInteger, nullable=False),
    Column("created_order", BigInteger, nullable=False),
    Column("changed_order", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("is_private", Integer, nullable=False),
    Column("has_password", Integer, nullable=False),
    Column("project", String, nullable=False),
    Column("model", String, nullable=False),
    Column("cost", Float, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("additions", BigInteger, nullable=False),
    Column("deletions", BigInteger, nullable=False),
    Column("first_prompt", String, nullable=False),
    Column("words", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index("ix_catalogue_created", "created_order", "id"),
    Index("ix_catalogue_changed", "changed_order", "id"),
    Index("ix_catalogue_owner_created", "owner", "created_order", "id"),
    Index("ix_catalogue_owner_changed", "owner", "changed_order", "id"),
    Index("ix_catalogue_project_created", "project", "created_order", "id"),
    Index("ix_catalogue_owner_project", "owner", "project", "created_order", "id"),
    Index("ix_catalogue_private", "is_private", "created_order", "id"),
    Index("ix_catalogue_owner_private", "owner", "is_private", "created_order", "id"),
    Index(
        "ix_catalogue_organization_created",
        "organization",
        "is_private",
        "created_order",
        "id",
        sqlite_where=text("organization IS NOT NULL"),
    ),
    Index(
        "ix_catalogue_organization_changed",
        "organization",
        "is_private",
        "changed_order",
        "id",
        sqlite_where=text("organization IS NOT NULL"),
    ),
    Index("ix_catalogue_expires", "expires_at", sqlite_where=text("expires_at IS NOT NULL")),
)
"""One row for each share that is listed. Orders are times with the sign turned: the newest comes first.
``is_private`` is 0 for whoever has the link, PRIVATE, or FOR_ORGANIZATION.
"""

catalogue_counts = Table(
    "catalogue_counts",
    metadata,
    Column("name", String, primary_key=True),
    Column("shares", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
"""How many rows of the catalogue there are, and the sum of their sizes: ``all``, ``of:OWNER``, and
``in:ORGANIZATION``."""

PRIVATE, FOR_ORGANIZATION = 1, 2
"""In the column ``is_private``."""

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
