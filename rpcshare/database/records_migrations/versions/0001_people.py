"""People: organizations, users, their identities and the sessions of their browsers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""

    def text(name: str) -> sa.Column[str]:
        return sa.Column(name, sa.String, nullable=False)

    def key(name: str) -> sa.Column[str]:
        return sa.Column(name, sa.String, primary_key=True)

    def time(name: str, *, nullable: bool = False) -> sa.Column[int]:
        return sa.Column(name, sa.BigInteger, nullable=nullable)

    op.create_table("organizations", key("id"), time("created_at"))
    op.create_table(
        "users",
        key("id"),
        *map(text, ("organization", "role", "role_from", "email")),
        sa.Column("email_is_trusted", sa.Boolean, nullable=False),
        *map(text, ("name", "avatar_url")),
        *map(time, ("created_at", "seen_at")),
        time("disabled_at", nullable=True),
    )
    op.create_index("ix_users_organization", "users", ["organization", "id"])
    op.create_index("ix_users_email", "users", ["email"])
    op.create_table(
        "identities",
        *map(key, ("issuer", "subject")),
        *map(text, ("user_id", "provider", "email")),
        *map(time, ("created_at", "used_at")),
    )
    op.create_index("ix_identities_user", "identities", ["user_id"])
    op.create_table(
        "sessions",
        key("id"),
        sa.Column("token_hash", sa.String, nullable=False, unique=True),
        *map(text, ("user_id", "provider", "address", "agent")),
        *map(time, ("created_at", "expires_at")),
    )
    op.create_index("ix_sessions_user", "sessions", ["user_id", "expires_at"])
    op.create_index("ix_sessions_expires", "sessions", ["expires_at"])
    changes = op.create_table(
        "people_changes", key("name"), sa.Column("revision", sa.BigInteger, nullable=False)
    )
    op.bulk_insert(changes, [{"name": "people", "revision": 0}])


def downgrade() -> None:
    """Refuse: users would be lost."""
    raise NotImplementedError("users are nowhere else: put a backup in place of the database")
