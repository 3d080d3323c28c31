"""The catalogue tells of which organization an owner is: of no share that there is yet."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INDEXES = {
    "ix_catalogue_organization_created": ["organization", "is_private", "created_order", "id"],
    "ix_catalogue_organization_changed": ["organization", "is_private", "changed_order", "id"],
}


def upgrade() -> None:
    """Add the column, and the indexes of the few rows that have something in it."""
    op.add_column("catalogue", sa.Column("organization", sa.String))
    known = sa.text("organization IS NOT NULL")
    for name, columns in _INDEXES.items():
        op.create_index(name, "catalogue", columns, sqlite_where=known, postgresql_where=known)


def downgrade() -> None:
    """Remove them."""
    for name in _INDEXES:
        op.drop_index(name, "catalogue")
    op.drop_column("catalogue", "organization")
