"""Requests of all nodes together, of whoever has a limit."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "request_counts",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Remove the table, which has what was counted in the last minutes alone."""
    op.drop_table("request_counts")
