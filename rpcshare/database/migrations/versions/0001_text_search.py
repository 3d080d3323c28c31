"""Text search: shares, texts, and their index."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "shares",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("generation", sa.String, nullable=False),
        sa.Column("head_etag", sa.String, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("is_deleted", sa.Boolean, nullable=False),
        sa.Column("owner", sa.String),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("reverted_to", sa.String, nullable=False),
    )
    op.create_table(
        "texts",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("share_id", sa.String, nullable=False),
        sa.Column("item", sa.String, nullable=False),
        sa.Column("message_id", sa.String),
        sa.Column("part_id", sa.String),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("tool", sa.String, nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_texts_share", "texts", ["share_id", "item"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "progress",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE VIRTUAL TABLE text_index USING fts5"
            "(body, owner, tokenize = 'unicode61 remove_diacritics 2')"
        )
        return
    op.execute("CREATE TABLE text_index (id bigint PRIMARY KEY, body text NOT NULL, words tsvector NOT NULL)")
    op.execute("CREATE INDEX ix_text_index_words ON text_index USING gin (words)")


def downgrade() -> None:
    """Remove all tables: they can be made again."""
    for name in ("text_index", "progress", "leases", "texts", "shares"):
        op.drop_table(name)
