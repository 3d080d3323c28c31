"""The vault: keys of third parties, encrypted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""

    def text(name: str, *, nullable: bool = False) -> sa.Column[str]:
        return sa.Column(name, sa.String, nullable=nullable)

    def number(name: str, *, nullable: bool = False) -> sa.Column[int]:
        return sa.Column(name, sa.BigInteger, nullable=nullable)

    op.create_table(
        "vault_entries",
        sa.Column("id", sa.String, primary_key=True),
        *map(text, ("owner", "service", "name", "scopes")),
        text("grants", nullable=True),
        number("version"),
        text("key_id"),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        number("created_at"),
        *(number(name, nullable=True) for name in ("rotated_at", "expires_at", "used_at")),
    )
    op.create_index("ix_vault_entries_owner", "vault_entries", ["owner", "service", "name"], unique=True)
    op.create_index("ix_vault_entries_key", "vault_entries", ["key_id"])


def downgrade() -> None:
    """Refuse: keys would be lost."""
    raise NotImplementedError("keys are nowhere else: put a backup in place of the database")
