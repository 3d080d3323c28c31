"""The tables of records: what is nowhere but in them, so that it is never removed to be made again.

SQLite has them in a file of their own, PostgreSQL in a schema of their own. The scripts in
``records_migrations/versions`` make them. Times are milliseconds since the epoch.
"""

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, String, Table

__all__ = [
    "agent_calls",
    "agent_events",
    "agent_links",
    "agent_messages",
    "agent_notices",
    "agent_requests",
    "agent_webhooks",
    "agents",
    "allowances",
    "audit_events",
    "identities",
    "metadata",
    "organizations",
    "people_changes",
    "request_counts",
    "sessions",
    "users",
    "vault_entries",
    "workspace_leases",
    "workspaces",
]

metadata = MetaData()

organizations = Table(
    "organizations",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
)
"""Groups of users who see nothing of each other's group. An id is the name that settings give it."""

users = Table(
    "users",
    metadata,
    Column("id", String, primary_key=True),
    Column("organization", String, nullable=False),
    Column("role", String, nullable=False),
    Column("role_from", String, nullable=False),
    Column("email", String, nullable=False),
    Column("email_is_trusted", Boolean, nullable=False),
    Column("name", String, nullable=False),
    Column("avatar_url", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    Index("ix_users_organization", "organization", "id"),
    Index("ix_users_email", "email"),
)
"""A user is in one organization, with one role. ``role_from`` tells who chose the role: ``default``,
``provider`` (a role map) or ``admin``. An address is in lower case, and empty where there is none."""

identities = Table(
    "identities",
    metadata,
    Column("issuer", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("user_id", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("email", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Index("ix_identities_user", "user_id"),
)
"""Who a user is to a provider. The issuer counts, not what the settings call it: another issuer under the
same name has other subjects."""

sessions = Table(
    "sessions",
    metadata,
    Column("id", String, primary_key=True),
    Column("token_hash", String, nullable=False, unique=True),
    Column("user_id", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("address", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_sessions_user", "user_id", "expires_at"),
    Index("ix_sessions_expires", "expires_at"),
)
"""Browsers that are signed in. A session that is ended has no row."""

people_changes = Table(
    "people_changes",
    metadata,
    Column("name", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)
"""One row, ``people``, whose number grows with every change that ends a right: nodes look at it alone."""

allowances = Table(
    "allowances",
    metadata,
    Column("key", String, primary_key=True),
    Column("storage", BigInteger),
    Column("shares", BigInteger),
    Column("requests", BigInteger),
)
"""What an admin has chosen that a user (``user:ID``) or an organization (``organization:NAME``) may have
(:mod:`rpcshare.auth.allowances`). NULL: what the settings say; 0: no limit."""

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", String, primary_key=True),
    Column("organization", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("action", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("address", String, nullable=False),
    Column("details", String, nullable=False),
    Index("ix_audit_events_organization", "organization", "id"),
    Index("ix_audit_events_at", "at"),
)
"""Who did what in an organization (:mod:`rpcshare.auth.organization_audit`). Ids are in the order of time;
``details`` is a JSON object of names and ids."""

request_counts = Table(
    "request_counts",
    metadata,
    Column("key", String, primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
)
"""How many requests there were of whoever has a limit, at all nodes, by minutes since the epoch
(:mod:`rpcshare.auth.request_totals`). Only the last minutes are kept."""

vault_entries = Table(
    "vault_entries",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("service", String, nullable=False),
    Column("name", String, nullable=False),
    Column("scopes", String, nullable=False),
    Column("grants", String),
    Column("version", BigInteger, nullable=False),
    Column("key_id", String, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("rotated_at", BigInteger),
    Column("expires_at", BigInteger),
    Column("used_at", BigInteger),
    Index("ix_vault_entries_owner", "owner", "service", "name", unique=True),
    Index("ix_vault_entries_key", "key_id"),
)
"""Keys of third parties (:mod:`rpcshare.vault`). ``wrapped_key`` and ``value`` are encrypted; ``scopes`` and
``grants`` are JSON arrays. What is revoked has no row, so that nothing is left to be decrypted."""

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("organization", String),
    Column("name", String, nullable=False),
    Column("state", String, nullable=False),
    Column("source", String),
    Column("mounts", String, nullable=False),
    Column("resources", String, nullable=False),
    Column("hosts", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("disk_used", BigInteger, nullable=False),
    Column("measured_at", BigInteger),
    Index("ix_workspaces_owner", "owner", "name", unique=True),
    Index("ix_workspaces_organization", "organization", "created_at"),
)
"""Directories that agents work on (:mod:`rpcshare.workspaces`). An owner is as shares have it, with control
characters quoted. ``source``, ``mounts``, ``resources`` and ``hosts`` are JSON."""

agents = Table(
    "agents",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("organization", String),
    Column("workspace", String, nullable=False),
    Column("share_id", String, nullable=False),
    Column("share_url", String, nullable=False),
    Column("status", String, nullable=False),
    Column("title", String, nullable=False),
    Column("model", String, nullable=False),
    Column("mode", String, nullable=False),
    Column("permission", String, nullable=False),
    Column("budget", String, nullable=False),
    Column("spent", String, nullable=False),
    Column("parent", String),
    Column("error", String),
    Column("created_at", BigInteger, nullable=False),
    Column("last_active_at", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("sync_seq", BigInteger, nullable=False),
    Index("ix_agents_owner", "owner", "created_at"),
    Index("ix_agents_organization", "organization", "created_at"),
    Index("ix_agents_workspace", "workspace", "status"),
)
"""Agents (:mod:`rpcshare.agents`). Their transcripts are shares. ``permission``, ``budget`` and ``spent``
are JSON."""

agent_messages = Table(
    "agent_messages",
    metadata,
    Column("agent", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("content", String, nullable=False),
    Column("attachments", String, nullable=False),
    Column("delivery", String, nullable=False),
    Column("state", String, nullable=False),
    Column("transcript_id", String),
    Column("command", String),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_agent_messages_number", "agent", "number", unique=True),
    Index("ix_agent_messages_state", "agent", "state"),
)
"""What was sent to agents, in the order of its numbers. Of what has ended, content and attachments are
emptied: they are in
the transcript."""

agent_requests = Table(
    "agent_requests",
    metadata,
    Column("agent", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False),
    Column("asked", String, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("answer", String),
    Column("answered_by", String),
    Column("answered_at", BigInteger),
    Index("ix_agent_requests_state", "agent", "state"),
)
"""Approvals and questions. ``asked`` and ``answer`` are JSON."""

agent_links = Table(
    "agent_links",
    metadata,
    Column("token_hash", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("request", String, nullable=False),
    Column("made_by", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_agent_links_request", "agent", "request"),
)
"""Links that answer one request once. The token is known to who was given the link."""

agent_events = Table(
    "agent_events",
    metadata,
    Column("agent", String, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("data", String, nullable=False),
)
"""What has happened to agents, in the order of its numbers, for who watches. ``data`` is JSON. Only the last
are kept."""

agent_webhooks = Table(
    "agent_webhooks",
    metadata,
    Column("owner", String, primary_key=True),
    Column("url", String, nullable=False),
    Column("secret", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("delivered_at", BigInteger),
    Column("problem", String),
)
"""Where owners are told of their agents. ``secret`` signs what they are told; ``problem`` says why the last
delivery failed."""

agent_notices = Table(
    "agent_notices",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("body", String, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_agent_notices_due", "due_at"),
    Index("ix_agent_notices_owner", "owner"),
)
"""What owners are still to be told: each goes when it is delivered, or has failed too often."""

workspace_leases = Table(
    "workspace_leases",
    metadata,
    Column("workspace", String, primary_key=True),
    Column("node", String, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_workspace_leases_node", "node"),
)
"""Which node runs the agents of a workspace, and until when unless it goes on."""

agent_calls = Table(
    "agent_calls",
    metadata,
    Column("id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("workspace", String, nullable=False),
    Column("name", String, nullable=False),
    Column("arguments", String, nullable=False),
    Column("state", String, nullable=False),
    Column("result", String),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_agent_calls_workspace", "workspace", "state"),
)
"""What a node asks of the node that runs an agent, and its answer. ``arguments`` and ``result`` are JSON."""
