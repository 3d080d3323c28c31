"""Workspaces: directories that agents work on."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table."""

    def text(name: str, *, nullable: bool = False) -> sa.Column[str]:
        return sa.Column(name, sa.String, nullable=nullable)

    def number(name: str, *, nullable: bool = False) -> sa.Column[int]:
        return sa.Column(name, sa.BigInteger, nullable=nullable)

    op.create_table(
        "workspaces",
        sa.Column("id", sa.String, primary_key=True),
        text("owner"),
        text("organization", nullable=True),
        *map(text, ("name", "state")),
        text("source", nullable=True),
        *map(text, ("mounts", "resources", "hosts")),
        *map(number, ("created_at", "updated_at", "disk_used")),
        number("measured_at", nullable=True),
    )
    op.create_index("ix_workspaces_owner", "workspaces", ["owner", "name"], unique=True)
    op.create_index("ix_workspaces_organization", "workspaces", ["organization", "created_at"])


def downgrade() -> None:
    """Refuse: what is known of workspaces would be lost."""
    raise NotImplementedError("workspaces are nowhere else: put a backup in place of the database")
