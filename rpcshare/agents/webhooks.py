"""Webhooks: where owners are told that an agent waits for them, is done, or has failed.

What is to be told is written in the transaction that changes an agent, so that nothing is told that has not
happened, and nothing is forgotten that has. :mod:`~rpcshare.agents.webhook_delivery` delivers it.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from rpcshare.agents.agent import Agent, AgentRequest, AgentStatus
from rpcshare.database.engine import Database
from rpcshare.database.records import agent_notices, agent_webhooks
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.egress_proxy import EgressPolicy
from rpcshare.shares.redaction import redact
from rpcshare.workspaces.workspace import owner_text

__all__ = ["ATTEMPTS", "Notice", "Webhook", "Webhooks", "check_url", "note_change"]

ATTEMPTS = 10
"""How often a delivery is tried: for about an hour."""

_MAX_WAITING = 200  # notices of one owner: those behind are not told
_CLAIMED = 120_000  # milliseconds, after which another node may try what one has not finished
_LONGEST_URL = 2000
_PORTS = {"https": 443, "http": 80}

_TOLD = {
    AgentStatus.BLOCKED: "agent.blocked",
    AgentStatus.PAUSED: "agent.paused",
    AgentStatus.INTERRUPTED: "agent.interrupted",
    AgentStatus.FAILED: "agent.failed",
}


class Webhook(msgspec.Struct, frozen=True):
    """Where an owner is told. Times are milliseconds since the epoch."""

    url: str
    secret: str
    """Signs what is told: ``whsec_`` and base64."""
    created_at: int
    delivered_at: int | None
    problem: str | None
    """Why the last delivery failed; None: it has not."""


class Notice(msgspec.Struct, frozen=True):
    """Something that an owner is to be told, which this process has claimed."""

    id: str
    owner: str
    """As the database has it."""
    body: str
    """JSON."""
    attempts: int
    """How often it has been tried."""
    webhook: Webhook


class Webhooks:
    """Keeps webhooks, and what is to be told. Methods raise DatabaseError."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Keep them in ``database``; the clock tells seconds."""
        self._database = database
        self._clock = clock

    async def of(self, owner: str) -> Webhook | None:
        """Return an owner's webhook."""
        return await self._database.read(lambda connection: _webhook(connection, owner_text(owner)))

    async def set(self, owner: str, url: str) -> Webhook:
        """Tell ``owner`` at ``url`` from now on. The secret stays if there is one."""

        def write(connection: Connection) -> Webhook:
            held = _webhook(connection, owner_text(owner))
            made = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
            webhook = Webhook(url, made if held is None else held.secret, self._now(), None, None)
            connection.execute(delete(agent_webhooks).where(agent_webhooks.c.owner == owner_text(owner)))
            values = {"owner": owner_text(owner), **msgspec.structs.asdict(webhook)}
            connection.execute(insert(agent_webhooks), values)
            return webhook

        return await self._database.write(write)

    async def remove(self, owner: str) -> None:
        """Tell an owner nothing any more, and forget the secret."""

        def write(connection: Connection) -> None:
            for table in (agent_webhooks, agent_notices):
                connection.execute(delete(table).where(table.c.owner == owner_text(owner)))

        await self._database.write(write)

    async def test(self, owner: str) -> None:
        """Tell an owner that a webhook works."""
        body = _body("test", self._now(), {})
        await self._database.write(lambda connection: _put(connection, owner_text(owner), body, self._now()))

    async def claim(self, most: int) -> Sequence[Notice]:
        """Return what is due; nobody else is given it for two minutes."""
        now = self._now()
        query = select(agent_notices).where(agent_notices.c.due_at <= now)
        query = query.order_by(agent_notices.c.due_at).limit(most)
        if not await self._database.read(lambda connection: connection.execute(query).first()):
            return []

        def write(connection: Connection) -> list[Notice]:
            claimed = []
            for row in connection.execute(query).fetchall():
                own = (agent_notices.c.id == row.id, agent_notices.c.due_at == row.due_at)
                later = update(agent_notices).where(*own).values(due_at=now + _CLAIMED)
                if connection.execute(later).rowcount != 1:
                    continue
                webhook = _webhook(connection, row.owner)
                if webhook is None:
                    connection.execute(delete(agent_notices).where(agent_notices.c.id == row.id))
                else:
                    claimed.append(Notice(row.id, row.owner, row.body, row.attempts, webhook))
            return claimed

        return await self._database.write(write)

    async def settle(self, notice: Notice, problem: str | None, again_in: float | None = None) -> None:
        """Note how a delivery went.

        Args:
            notice: what was delivered, or was not.
            problem: why it was not; None: it was.
            again_in: seconds after which it is tried again; None: never.
        """
        now = self._now()

        def write(connection: Connection) -> None:
            own = agent_notices.c.id == notice.id
            if problem is None or again_in is None:
                connection.execute(delete(agent_notices).where(own))
            else:
                values = {"attempts": notice.attempts + 1, "due_at": now + int(again_in * 1000)}
                connection.execute(update(agent_notices).where(own).values(values))
            told = {"problem": problem, **({"delivered_at": now} if problem is None else {})}
            of_owner = (agent_webhooks.c.owner == notice.owner, agent_webhooks.c.url == notice.webhook.url)
            connection.execute(update(agent_webhooks).where(*of_owner).values(told))

        await self._database.write(write)

    def _now(self) -> int:
        return int(self._clock() * 1000)


def check_url(url: str, policy: EgressPolicy) -> str:
    """Return ``url`` if something may be delivered there: what its host resolves to is looked at each time.

    Raises:
        ShareError: INVALID_ARGUMENT: it may not.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        host = (parts.hostname or "").removesuffix(".")
        EgressPolicy([host])
    except ValueError:
        raise _wrong("must be https://HOST/…, with the name of a host and no address") from None
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > _LONGEST_URL or "*" in host:
        raise _wrong(f"must be a URL of at most {_LONGEST_URL:,} characters")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _wrong("must have no user, password or fragment")
    is_private = policy.allows_private(host, port)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_private):
        raise _wrong("must begin with https://")
    if not policy.allows(host, port):
        raise _wrong("this server delivers to the ports 80 and 443 alone")
    return url


def note_change(
    connection: Connection, before: Agent, agent: Agent, requests: Sequence[AgentRequest], now: int
) -> None:
    """Write down what an agent's owner is to be told of a change, in the transaction that makes it."""
    if agent.status is before.status:
        return
    kind = _TOLD.get(agent.status)
    if agent.status is AgentStatus.IDLE and before.status in (AgentStatus.RUNNING, AgentStatus.BLOCKED):
        kind = "agent.done"
    # What becomes of a sub-agent is its parent's business, unless somebody has to answer.
    if kind is None or (agent.parent is not None and agent.status is not AgentStatus.BLOCKED):
        return
    owner = owner_text(agent.owner)
    if _webhook(connection, owner) is None:
        return
    about = {
        "agent": {
            "id": agent.id,
            "title": agent.title,
            "status": agent.status.value,
            "workspace": agent.workspace,
            "url": f"{agent.share_url}?end=1#agent",
            **({} if agent.error is None else {"error": agent.error[:2000]}),
        },
        "requests": [
            {"id": each.id, "kind": each.kind.value, "permission": each.asked.get("permission")}
            for each in requests[:20]
        ],
    }
    _put(connection, owner, _body(kind, now, about), now)


def _put(connection: Connection, owner: str, body: str, now: int) -> None:
    waiting = select(func.count()).select_from(agent_notices).where(agent_notices.c.owner == owner)
    if (connection.execute(waiting).scalar() or 0) >= _MAX_WAITING:
        return
    values = {"id": f"ntc_{secrets.token_hex(12)}", "owner": owner, "body": body, "attempts": 0}
    connection.execute(insert(agent_notices), {**values, "due_at": now, "created_at": now})


def _body(kind: str, now: int, data: object) -> str:
    at = datetime.fromtimestamp(now / 1000, UTC).isoformat(timespec="milliseconds")
    return redact(msgspec.json.encode({"type": kind, "timestamp": at, "data": data})).decode()


def _webhook(connection: Connection, owner: str) -> Webhook | None:
    row = connection.execute(select(agent_webhooks).where(agent_webhooks.c.owner == owner)).first()
    if row is None:
        return None
    return Webhook(row.url, row.secret, row.created_at, row.delivered_at, row.problem)


def _wrong(why: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, f"url: {why}")
