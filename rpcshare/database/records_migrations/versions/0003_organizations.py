"""What users and organizations may have, and what was done in an organization."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "allowances",
        sa.Column("key", sa.String, primary_key=True),
        *(sa.Column(name, sa.BigInteger) for name in ("storage", "shares", "requests")),
    )
    op.create_table(
        "audit_events",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("organization", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        *(
            sa.Column(name, sa.String, nullable=False)
            for name in ("action", "outcome", "subject", "address", "details")
        ),
    )
    op.create_index("ix_audit_events_organization", "audit_events", ["organization", "id"])
    op.create_index("ix_audit_events_at", "audit_events", ["at"])


def downgrade() -> None:
    """Refuse: limits would be lifted, and what was done forgotten."""
    raise NotImplementedError("these are nowhere else: put a backup in place of the database")
