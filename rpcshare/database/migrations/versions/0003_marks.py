"""The index of texts tells whose each is and of what tool and role; the words that it has can be listed."""

from alembic import op

revision = "0003"
down_revision = "0002"

# FTS5 gathers the words of a transaction in 16 MiB of memory before it writes them: with its usual million
# bytes, indexing a large share takes half as long again.
_GATHER_MORE = "INSERT INTO text_index (text_index, rank) VALUES ('hashsize', 16777216)"


def upgrade() -> None:
    """Make the index anew: all shares are indexed again."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE text_index")
        op.execute(
            "CREATE VIRTUAL TABLE text_index USING fts5"
            "(body, marks, tokenize = 'unicode61 remove_diacritics 2')"
        )
        op.execute(_GATHER_MORE)
        op.execute("CREATE VIRTUAL TABLE text_words USING fts5vocab('text_index', 'instance')")
    else:
        op.execute("DELETE FROM text_index")
        op.execute('CREATE INDEX ix_shares_id ON shares (id COLLATE "C")')
    op.execute("DELETE FROM texts")
    op.execute("UPDATE shares SET entry = -1 WHERE NOT is_deleted")
    op.execute("DELETE FROM progress WHERE name IN ('complete', 'reindex')")


def downgrade() -> None:
    """Remove the list of words; the index of the older version is to be made anew."""
    if op.get_bind().dialect.name == "sqlite":
        op.drop_table("text_words")
