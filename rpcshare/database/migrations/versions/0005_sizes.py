"""The catalogue tells how large shares are, and the sum for each owner and organization.

Only users have a limit on it, of whom there are none yet: so shares that there are count when they change, or
when the catalogue is made anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("catalogue", sa.Column("size", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("catalogue_counts", sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    """Remove them."""
    op.drop_column("catalogue_counts", "bytes")
    op.drop_column("catalogue", "size")
