"""The catalogue: what listings show of shares."""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

logger = logging.getLogger("rpcshare.database")


def upgrade() -> None:
    """Make the tables; all shares are indexed again, for they have no rows in them."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "catalogue",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("generation", sa.String, nullable=False),
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("owner", sa.String),
        *(sa.Column(name, sa.String, nullable=False) for name in ("title", "directory")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
        sa.Column("expires_at", sa.BigInteger),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("is_private", "has_password")),
        *(sa.Column(name, sa.String, nullable=False) for name in ("project", "model")),
        sa.Column("cost", sa.Float, nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("tokens", "files", "additions", "deletions")
        ),
        *(sa.Column(name, sa.String, nullable=False) for name in ("first_prompt", "words")),
    )
    op.create_table(
        "catalogue_counts",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("shares", sa.BigInteger, nullable=False),
    )
    for name, columns in _INDEXES.items():
        op.create_index(name, "catalogue", columns)
    op.create_index(
        "ix_catalogue_expires", "catalogue", ["expires_at"], sqlite_where=sa.text("expires_at IS NOT NULL")
    )
    if op.get_bind().dialect.name == "sqlite":
        _index_words_in_sqlite()
    else:
        _index_words_in_postgresql()
    op.execute("UPDATE shares SET entry = -1 WHERE NOT is_deleted")
    op.execute("DELETE FROM progress")


_COUNTS = (
    "message_count",
    "part_count",
    "diff_count",
    "model_count",
    "sync_count",
    "created_order",
    "changed_order",
    "revision",
)
_INDEXES = {
    "ix_catalogue_created": ["created_order", "id"],
    "ix_catalogue_changed": ["changed_order", "id"],
    "ix_catalogue_owner_created": ["owner", "created_order", "id"],
    "ix_catalogue_owner_changed": ["owner", "changed_order", "id"],
    "ix_catalogue_project_created": ["project", "created_order", "id"],
    "ix_catalogue_owner_project": ["owner", "project", "created_order", "id"],
    "ix_catalogue_private": ["is_private", "created_order", "id"],
    "ix_catalogue_owner_private": ["owner", "is_private", "created_order", "id"],
}


def _index_words_in_sqlite() -> None:
    # Its content is the catalogue's own column, which triggers keep it in step with.
    op.execute(
        "CREATE VIRTUAL TABLE catalogue_words USING fts5(words, content = 'catalogue', "
        "content_rowid = 'number', tokenize = 'trigram case_sensitive 1')"
    )
    remove = (
        "INSERT INTO catalogue_words (catalogue_words, rowid, words) VALUES ('delete', old.number, old.words)"
    )
    add = "INSERT INTO catalogue_words (rowid, words) VALUES (new.number, new.words)"
    op.execute(f"CREATE TRIGGER catalogue_added AFTER INSERT ON catalogue BEGIN {add}; END")
    op.execute(f"CREATE TRIGGER catalogue_removed AFTER DELETE ON catalogue BEGIN {remove}; END")
    op.execute(
        "CREATE TRIGGER catalogue_changed AFTER UPDATE OF words ON catalogue "
        f"WHEN old.words <> new.words BEGIN {remove}; {add}; END"
    )


def _index_words_in_postgresql() -> None:
    slow = "Listings that look for words read every row, because PostgreSQL's extension pg_trgm %s"
    found = "SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'"
    if op.get_bind().execute(sa.text(found)).first() is None:
        logger.warning(slow, "is not installed")
        return
    try:
        with op.get_bind().begin_nested():
            op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            op.execute("CREATE INDEX ix_catalogue_words ON catalogue USING gin (words gin_trgm_ops)")
    except sa.exc.DBAPIError as exc:
        logger.warning(slow, f"cannot be used: {str(exc.orig).splitlines()[0]}")


def downgrade() -> None:
    """Remove the tables: they can be made again."""
    if op.get_bind().dialect.name == "sqlite":
        op.drop_table("catalogue_words")
    op.drop_table("catalogue_counts")
    op.drop_table("catalogue")
