"""Of a share is known which entry of a number was the last, and whether its row is ahead of it.

Of shares that there are, the entry is taken for the one that was indexed, as before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("shares", sa.Column("log_etag", sa.String))
    op.add_column("shares", sa.Column("is_ahead", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Remove them."""
    op.drop_column("shares", "is_ahead")
    op.drop_column("shares", "log_etag")
