"""Who did what in an organization, as rows of the database of records, for the admins of the organization.

The audit log of the operator has all of it, as lines; these rows are written behind it. What is not written
yet when a process is killed, half a second's at most, is in the lines alone. An organization keeps its newest
events: others are removed, by their number and by their age.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select

from rpcshare.auth.audit import Action, AuditEvent, RecordedEvent
from rpcshare.database import DatabaseError
from rpcshare.database.engine import Database
from rpcshare.database.records import audit_events
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["KEPT", "OrganizationAudit"]

logger = logging.getLogger(__name__)

KEPT = 10_000
"""Events of an organization that are kept."""
KEPT_FOR = 365 * 24 * 3600 * 1000  # ms
MAX_LIMIT = 200

_TICK = 0.5  # seconds
_WAITING = 10_000  # events that wait to be written, while the database fails
_AT_ONCE = 500
_TRIM_EVERY = 200  # events written here of an organization, between two times of counting all of it


class OrganizationAudit:
    """Keeps the events of organizations, and reads them."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """Keep them in ``database``, whose schema is that of records; ``clock`` tells seconds."""
        self._database = database
        self._clock = clock
        self._waiting: deque[RecordedEvent] = deque()
        self._written: dict[str, int] = {}
        self._lost = 0
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[OrganizationAudit]:
        """Write in the background what is recorded, and at the end what is left."""
        task = asyncio.create_task(self._write_again_and_again())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self._try_to_write()

    def record(self, event: AuditEvent) -> None:
        """Take an event, which is written soon."""
        if len(self._waiting) >= _WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(RecordedEvent(f"{event.at:013d}{secrets.token_hex(6)}", event))

    async def flush(self) -> None:
        """Write what waits. Raises DatabaseError."""
        async with self._writing:  # or the same events would be written twice
            while self._waiting:
                some = list(islice(self._waiting, _AT_ONCE))
                await self._database.write(partial(self._write, some))
                for each in some:  # those that came first may have been let go of meanwhile
                    if self._waiting and self._waiting[0] is each:
                        self._waiting.popleft()

    def _write(self, events: list[RecordedEvent], connection: Connection) -> None:
        rows = [
            {
                "id": each.id,
                **msgspec.structs.asdict(each.event),
                "action": each.event.action.value,
                "details": msgspec.json.encode(each.event.details).decode(),
            }
            for each in events
        ]
        connection.execute(insert(audit_events), rows)
        for organization in {each.event.organization for each in events}:
            written = self._written.get(organization, 0) + sum(
                each.event.organization == organization for each in events
            )
            if written >= _TRIM_EVERY or organization not in self._written:
                _trim(connection, organization, int(self._clock() * 1000) - KEPT_FOR)
                written = 0
            self._written[organization] = written

    async def page(
        self, organization: str, *, cursor: str | None = None, limit: int = 50
    ) -> tuple[list[RecordedEvent], str | None]:
        """Return events of an organization, the newest first, and the cursor of the next page.

        Raises:
            ShareError: INVALID_ARGUMENT.
            DatabaseError: the database failed.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"limit: must be from 1 to {MAX_LIMIT}")
        await self.flush()  # what this node has done is there at once
        wanted = select(audit_events).where(audit_events.c.organization == organization)
        if cursor is not None:
            wanted = wanted.where(audit_events.c.id < cursor)
        wanted = wanted.order_by(audit_events.c.id.desc()).limit(limit + 1)
        found = await self._database.read(lambda connection: list(map(_of_row, connection.execute(wanted))))
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def _write_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            await self._try_to_write()

    async def _try_to_write(self) -> None:
        try:
            await self.flush()
        except DatabaseError as exc:
            if not self._lost:
                logger.warning("What is done in organizations cannot be recorded: %s", exc)
            return
        if self._lost:
            logger.warning("%d events of organizations are in the audit log alone", self._lost)
            self._lost = 0


def _trim(connection: Connection, organization: str, since: int) -> None:
    of = audit_events.c.organization == organization
    newest = select(audit_events.c.id).where(of).order_by(audit_events.c.id.desc())
    last = connection.execute(newest.offset(KEPT - 1).limit(1)).scalar()
    if last is not None:
        connection.execute(delete(audit_events).where(of, audit_events.c.id < last))
    connection.execute(delete(audit_events).where(audit_events.c.at < since))


def _of_row(row: Row[Any]) -> RecordedEvent:
    details = msgspec.json.decode(row.details, type=dict[str, str])
    event = AuditEvent(
        row.organization, row.at, Action(row.action), row.outcome, row.subject, row.address, details
    )
    return RecordedEvent(row.id, event)
