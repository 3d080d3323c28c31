"""Webhooks of owners of agents, and what they are still to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "agent_webhooks",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("secret", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("delivered_at", sa.BigInteger),
        sa.Column("problem", sa.String),
    )
    op.create_table(
        "agent_notices",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_agent_notices_due", "agent_notices", ["due_at"])
    op.create_index("ix_agent_notices_owner", "agent_notices", ["owner"])


def downgrade() -> None:
    """Remove them."""
    op.drop_table("agent_notices")
    op.drop_table("agent_webhooks")
