"""SQLite finds longer texts in the catalogue by six characters at once, however many rows have each three."""

import sqlalchemy as sa
from alembic import op

from rpcshare.database.character_pairs import pairs_of

revision = "0006"
down_revision = "0005"

_AT_ONCE = 10_000


def upgrade() -> None:
    """Make the index, and fill it."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    op.execute(
        "CREATE VIRTUAL TABLE catalogue_pairs USING fts5(pairs, content = '', columnsize = 0, detail = none, "
        "tokenize = 'trigram case_sensitive 1')"
    )
    query = sa.text("SELECT number, words FROM catalogue WHERE number > :last ORDER BY number LIMIT :most")
    last = -(2**63)
    while rows := connection.execute(query, {"last": last, "most": _AT_ONCE}).all():
        connection.exec_driver_sql(
            "INSERT INTO catalogue_pairs (rowid, pairs) VALUES (?, ?)",
            [(number, pairs_of(words)) for number, words in rows],
        )
        last = rows[-1].number


def downgrade() -> None:
    """Remove it."""
    if op.get_bind().dialect.name == "sqlite":
        op.drop_table("catalogue_pairs")
