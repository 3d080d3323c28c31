"""Agents: their queues, what they ask, their events; and which node runs them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def text(name: str, *, key: bool = False, nullable: bool = False) -> sa.Column[str]:
    """Return a column of text."""
    return (
        sa.Column(name, sa.String, primary_key=True) if key else sa.Column(name, sa.String, nullable=nullable)
    )


def number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    """Return a column of whole numbers."""
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "agents",
        text("id", key=True),
        text("owner"),
        text("organization", nullable=True),
        *map(text, ("workspace", "share_id", "share_url", "status", "title", "model", "mode")),
        *map(text, ("permission", "budget", "spent")),
        text("parent", nullable=True),
        text("error", nullable=True),
        *map(number, ("created_at", "last_active_at", "events", "sync_seq")),
    )
    op.create_index("ix_agents_owner", "agents", ["owner", "created_at"])
    op.create_index("ix_agents_organization", "agents", ["organization", "created_at"])
    op.create_index("ix_agents_workspace", "agents", ["workspace", "status"])
    op.create_table(
        "agent_messages",
        text("agent", key=True),
        text("id", key=True),
        number("number"),
        *map(text, ("content", "attachments", "delivery", "state")),
        *(text(name, nullable=True) for name in ("transcript_id", "command")),
        number("created_at"),
    )
    op.create_index("ix_agent_messages_number", "agent_messages", ["agent", "number"], unique=True)
    op.create_index("ix_agent_messages_state", "agent_messages", ["agent", "state"])
    op.create_table(
        "agent_requests",
        text("agent", key=True),
        text("id", key=True),
        *map(text, ("kind", "state", "asked")),
        number("asked_at"),
        text("answer", nullable=True),
        text("answered_by", nullable=True),
        number("answered_at", nullable=True),
    )
    op.create_index("ix_agent_requests_state", "agent_requests", ["agent", "state"])
    op.create_table(
        "agent_links",
        text("token_hash", key=True),
        *map(text, ("agent", "request", "made_by")),
        *map(number, ("created_at", "expires_at")),
    )
    op.create_index("ix_agent_links_request", "agent_links", ["agent", "request"])
    op.create_table(
        "agent_events",
        text("agent", key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        text("type"),
        number("at"),
        text("data"),
    )
    op.create_table(
        "workspace_leases",
        text("workspace", key=True),
        text("node"),
        number("expires_at"),
    )
    op.create_table(
        "agent_calls",
        text("id", key=True),
        *map(text, ("agent", "workspace", "name", "arguments", "state")),
        text("result", nullable=True),
        number("created_at"),
    )
    op.create_index("ix_agent_calls_workspace", "agent_calls", ["workspace", "state"])
    op.create_index("ix_workspace_leases_node", "workspace_leases", ["node"])


def downgrade() -> None:
    """Refuse: what agents were told would be lost."""
    raise NotImplementedError("agents are nowhere else: put a backup in place of the database")
