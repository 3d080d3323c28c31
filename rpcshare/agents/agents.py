"""All agents: their rows in the database of records, and who is told when one changes."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, or_, select, tuple_

from rpcshare.agents.agent import (
    Agent,
    AgentEvent,
    AgentRequest,
    AgentStatus,
    MessageState,
    QueuedMessage,
    RequestState,
    unknown_agent,
)
from rpcshare.agents.agent_edit import (
    AgentEdit,
    agent_columns,
    agent_from,
    message_from,
    request_from,
)
from rpcshare.agents.agent_feed import AgentFeeds
from rpcshare.auth.subject_sources import user_of
from rpcshare.database.engine import Database
from rpcshare.database.records import (
    agent_events,
    agent_links,
    agent_messages,
    agent_requests,
    users,
    workspaces,
)
from rpcshare.database.records import agents as rows
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.workspaces.workspace import owner_text
from rpcshare.workspaces.workspaces import Reach

__all__ = ["AgentNews", "AgentPage", "AgentWork", "Agents", "EventPage", "RequestLinkRow"]

T = TypeVar("T")

_LINK_KEPT = 7 * 24 * 3600 * 1000  # milliseconds

_MAX_EVENTS = 200  # that are read at once
_MAX_IDS = 500  # of one query


class AgentPage(msgspec.Struct, frozen=True):
    """Agents, the newest first."""

    agents: list[Agent]
    cursor: str | None
    """Of the next page; None: there is none."""


class EventPage(msgspec.Struct, frozen=True):
    """Events behind a number, the oldest first."""

    events: list[AgentEvent]
    is_gap: bool
    """Whether events behind the number are gone."""


class RequestLinkRow(msgspec.Struct, frozen=True):
    """A link that answers one request once. Times are milliseconds since the epoch."""

    agent: str
    request: str
    made_by: str
    expires_at: int
    is_over: bool


class AgentWork(msgspec.Struct, frozen=True):
    """An agent, and its messages that are not done with."""

    agent: Agent
    sent: list[QueuedMessage]
    queued: list[QueuedMessage]


class AgentNews:
    """Tells who waits on this node that an agent has changed."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._listeners: set[Callable[[Agent], None]] = set()

    def tell(self, agent: Agent) -> None:
        """Wake those who wait for this agent, and call the listeners."""
        for event in self._waiting.get(agent.id, ()):
            event.set()
        for listener in list(self._listeners):
            listener(agent)

    def listen(self, listener: Callable[[Agent], None]) -> Callable[[], None]:
        """Call ``listener`` after each change; return what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    @contextmanager
    def waiting(self, agent_id: str) -> Any:  # noqa: ANN401 -- a generator of one event
        """Yield an event that is set at each change of an agent."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(agent_id, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting and self._waiting.get(agent_id) is waiting:
                del self._waiting[agent_id]


class Agents:
    """Keeps the rows; who may do what is known to those who call. Methods raise DatabaseError."""

    def __init__(
        self,
        database: Database,
        *,
        max_of_owner: int = 100,
        is_shared: bool | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep them.

        Args:
            database: has the schema of records.
            max_of_owner: how many agents of one owner there may be that are not over.
            is_shared: whether other processes have the same database; None: if it is PostgreSQL.
            clock: tells seconds.
        """
        self.is_shared = not database.is_sqlite if is_shared is None else is_shared
        self.database = database
        self.news = AgentNews()
        self.feeds = AgentFeeds(self)
        self.news.listen(self.feeds.tell)
        self._max_of_owner = max_of_owner
        self._clock = clock

    def now(self) -> int:
        """Return milliseconds since the epoch."""
        return int(self._clock() * 1000)

    async def add(self, agent: Agent, work: Callable[[AgentEdit], T]) -> T:
        """Make an agent, and do ``work`` in the same transaction.

        Raises:
            ShareError: INVALID_ARGUMENT: its owner has too many.
        """

        def write(connection: Connection) -> tuple[T, Agent]:
            over = [status.value for status in AgentStatus if status.is_over]
            own = (
                rows.c.owner == owner_text(agent.owner),
                rows.c.status.not_in(over),
                rows.c.parent.is_(None),
            )
            count = connection.execute(select(func.count()).select_from(rows).where(*own)).scalar() or 0
            if agent.parent is None and count >= self._max_of_owner:
                message = (
                    f"this server keeps at most {self._max_of_owner:,} agents of one owner: terminate some"
                )
                raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
            connection.execute(insert(rows), agent_columns(agent))
            edit = AgentEdit(connection, agent, self.now())
            done = work(edit)
            edit.save()
            return done, edit.agent

        done, changed = await self.database.write(write)
        self.news.tell(changed)
        return done

    async def edit(self, agent_id: str, work: Callable[[AgentEdit], T]) -> T:
        """Return what ``work`` does in a transaction on one agent; tell of its events once it is committed.

        Raises:
            ShareError: SESSION_NOT_FOUND: there is none.
        """

        def write(connection: Connection) -> tuple[T, AgentEdit]:
            query = select(rows).where(rows.c.id == agent_id).with_for_update()  # which SQLite leaves out
            row = connection.execute(query).first()
            if row is None:
                raise unknown_agent()
            edit = AgentEdit(connection, agent_from(row), self.now())
            done = work(edit)
            edit.save()
            return done, edit

        done, edit = await self.database.write(write)
        if edit.has_events:
            self.news.tell(edit.agent)
        return done

    async def find(self, agent_id: str, reach: Reach) -> Agent:
        """Return an agent that is within reach. Raises ShareError: SESSION_NOT_FOUND."""
        query = select(rows).where(rows.c.id == agent_id, *_within(reach))
        row = await self.database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise unknown_agent()
        return agent_from(row)

    async def list(
        self,
        reach: Reach,
        *,
        status: AgentStatus | None = None,
        workspace: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> AgentPage:
        """Return a page of the agents within reach, the newest first; sub-agents are not among them.

        Raises:
            ShareError: INVALID_ARGUMENT: the cursor is none.
        """
        query = select(rows).where(*_within(reach), rows.c.parent.is_(None))
        if status is not None:
            query = query.where(rows.c.status == status.value)
        if workspace is not None:
            query = query.where(rows.c.workspace == workspace)
        if cursor is not None:
            at, _, last = cursor.partition("-")
            if not at.isdecimal() or len(at) > 15:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "cursor: is none of a page of agents")
            query = query.where(tuple_(rows.c.created_at, rows.c.id) < (int(at), last))
        query = query.order_by(rows.c.created_at.desc(), rows.c.id.desc()).limit(limit + 1)
        found = await self.database.read(lambda connection: list(connection.execute(query)))
        page = [agent_from(row) for row in found[:limit]]
        last_one = page[-1] if len(found) > limit else None
        return AgentPage(page, None if last_one is None else f"{last_one.created_at}-{last_one.id}")

    async def find_all(self, agent_ids: Sequence[str], reach: Reach) -> Sequence[Agent]:
        """Return those of the agents, at most 500, that there are within reach."""
        query = select(rows).where(rows.c.id.in_(agent_ids), *_within(reach))
        return [agent_from(row) for row in await self.database.read(partial(_all_rows, query))]

    async def children(self, agent_id: str) -> Sequence[Agent]:
        """Return the sub-agents of an agent."""
        query = select(rows).where(rows.c.parent == agent_id).order_by(rows.c.created_at)
        found = await self.database.read(lambda connection: list(connection.execute(query)))
        return [agent_from(row) for row in found]

    async def of_workspace(self, workspace: str) -> Sequence[Agent]:
        """Return the agents of a workspace that are not over, sub-agents with them."""
        over = [status.value for status in AgentStatus if status.is_over]
        query = select(rows).where(rows.c.workspace == workspace, rows.c.status.not_in(over))
        found = await self.database.read(lambda connection: list(connection.execute(query)))
        return [agent_from(row) for row in found]

    async def work_of(self, workspace: str) -> Sequence[AgentWork]:
        """Return what is to be done for the agents of a workspace that are not over, but for sub-agents."""
        over = [status.value for status in AgentStatus if status.is_over]
        query = select(rows).where(
            rows.c.workspace == workspace, rows.c.status.not_in(over), rows.c.parent.is_(None)
        )
        active = [MessageState.SENT.value, MessageState.QUEUED.value]

        def read(connection: Connection) -> list[AgentWork]:
            found = [agent_from(row) for row in connection.execute(query)]
            ids = [agent.id for agent in found]
            of_messages = select(agent_messages).where(
                agent_messages.c.agent.in_(ids), agent_messages.c.state.in_(active)
            )
            messages = [
                message_from(row) for row in connection.execute(of_messages.order_by(agent_messages.c.number))
            ]
            return [
                AgentWork(
                    agent,
                    [each for each in messages if each.agent == agent.id and each.state is MessageState.SENT],
                    [
                        each
                        for each in messages
                        if each.agent == agent.id and each.state is MessageState.QUEUED
                    ],
                )
                for agent in found
            ]

        return await self.database.read(read)

    async def workspaces_at_work(self) -> Sequence[str]:
        """Return the workspaces that have an agent with something to do."""
        busy = [status.value for status in AgentStatus if status.is_busy]
        query = select(rows.c.workspace).where(rows.c.status.in_(busy)).distinct()
        found = await self.database.read(lambda connection: list(connection.execute(query)))
        return [row.workspace for row in found]

    async def is_owner_enabled(self, owner: str) -> bool:
        """Whether an owner is nobody's user, or a user who is there and not disabled."""
        user_id = user_of(owner)
        if user_id is None:
            return True
        query = select(users.c.id).where(users.c.id == user_id, users.c.disabled_at.is_(None))
        return await self.database.read(lambda connection: connection.execute(query).first()) is not None

    async def has_work(self, workspace: str) -> bool:
        """Whether there is something to do for an agent of a workspace."""
        return any(
            each.agent.status.is_busy or each.sent or (each.queued and each.agent.status is AgentStatus.IDLE)
            for each in await self.work_of(workspace)
        )

    async def messages(self, agent_id: str, *states: MessageState) -> Sequence[QueuedMessage]:
        """Return the messages of an agent in one of ``states``, the oldest first."""
        query = select(agent_messages).where(
            agent_messages.c.agent == agent_id, agent_messages.c.state.in_([each.value for each in states])
        )
        query = query.order_by(agent_messages.c.number)
        found = await self.database.read(lambda connection: list(connection.execute(query)))
        return [message_from(row) for row in found]

    async def requests(
        self, agent_id: str, state: RequestState = RequestState.ASKED
    ) -> Sequence[AgentRequest]:
        """Return what an agent asks, the oldest first."""
        query = select(agent_requests).where(
            agent_requests.c.agent == agent_id, agent_requests.c.state == state.value
        )
        query = query.order_by(agent_requests.c.asked_at, agent_requests.c.id)
        found = await self.database.read(lambda connection: list(connection.execute(query)))
        return [request_from(row) for row in found]

    async def request(self, agent_id: str, request_id: str) -> AgentRequest | None:
        """Return one request of an agent."""
        query = select(agent_requests).where(
            agent_requests.c.agent == agent_id, agent_requests.c.id == request_id
        )
        row = await self.database.read(lambda connection: connection.execute(query).first())
        return None if row is None else request_from(row)

    async def events(self, agent_id: str, after: int) -> EventPage:
        """Return the events behind the number ``after``, at most 200."""
        query = select(agent_events).where(agent_events.c.agent == agent_id, agent_events.c.number > after)
        query = query.order_by(agent_events.c.number).limit(_MAX_EVENTS)
        found = await self.database.read(lambda connection: list(connection.execute(query)))
        events = [AgentEvent(row.number, row.type, row.at, msgspec.json.decode(row.data)) for row in found]
        return EventPage(events, is_gap=bool(events) and events[0].number > after + 1)

    async def newest_events(self, agent_ids: Sequence[str]) -> dict[str, int]:
        """Return the number of the last event of each agent."""
        found: list[Row[Any]] = []
        for start in range(0, len(agent_ids), _MAX_IDS):
            query = select(rows.c.id, rows.c.events).where(rows.c.id.in_(agent_ids[start : start + _MAX_IDS]))
            found += await self.database.read(partial(_all_rows, query))
        return {row.id: row.events for row in found}

    async def state_of(self, agent_id: str) -> tuple[Agent, Sequence[AgentRequest]]:
        """Return an agent and what it asks, as they are at one moment.

        Raises:
            ShareError: SESSION_NOT_FOUND.
        """
        asked = (agent_requests.c.agent == agent_id, agent_requests.c.state == RequestState.ASKED.value)
        of_requests = select(agent_requests).where(*asked)
        of_requests = of_requests.order_by(agent_requests.c.asked_at, agent_requests.c.id)

        def read(connection: Connection) -> tuple[Agent, Sequence[AgentRequest]]:
            row = connection.execute(select(rows).where(rows.c.id == agent_id)).first()
            if row is None:
                raise unknown_agent()
            return agent_from(row), [request_from(each) for each in connection.execute(of_requests)]

        return await self.database.read(read)

    # Links that answer one request

    async def make_link(self, request: AgentRequest, made_by: str, lasts: float) -> tuple[str, int]:
        """Return the token of a new link, and when it ends, in milliseconds since the epoch."""
        token = secrets.token_urlsafe(24)
        now = self.now()
        values = {
            "token_hash": _hash(token),
            "agent": request.agent,
            "request": request.id,
            "made_by": made_by,
            "created_at": now,
            "expires_at": now + int(lasts * 1000),
        }

        def write(connection: Connection) -> None:
            # For a while longer a link says that its time is over.
            old = agent_links.c.expires_at < now - _LINK_KEPT
            connection.execute(delete(agent_links).where(old))
            connection.execute(insert(agent_links), values)

        await self.database.write(write)
        return token, values["expires_at"]  # type: ignore[return-value]

    async def linked_request(self, token: str) -> tuple[AgentRequest, Agent] | None:
        """Return what a link is for, and whose; None: there is no such link, or its time is over."""
        link = await self.link(token)
        if link is None or link.is_over:
            return None
        request = await self.request(link.agent, link.request)
        if request is None:
            return None
        return request, await self.find(link.agent, Reach((), is_all=True))

    async def workspace_name(self, workspace: str) -> str:
        """Return what a workspace is called; empty: there is none."""
        query = select(workspaces.c.name).where(workspaces.c.id == workspace)
        return await self.database.read(lambda connection: connection.execute(query).scalar()) or ""

    async def link(self, token: str) -> RequestLinkRow | None:
        """Return a link, whose time may be over; None: there is none."""
        query = select(agent_links).where(agent_links.c.token_hash == _hash(token))
        row = await self.database.read(lambda connection: connection.execute(query).first())
        if row is None:
            return None
        return RequestLinkRow(
            row.agent, row.request, row.made_by, row.expires_at, is_over=row.expires_at < self.now()
        )


def _all_rows(query: Select[Any], connection: Connection) -> list[Row[Any]]:
    return list(connection.execute(query))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _within(reach: Reach) -> list[ColumnElement[bool]]:
    if reach.is_all:
        return []
    conditions: list[ColumnElement[bool]] = [rows.c.owner.in_([owner_text(owner) for owner in reach.owners])]
    if reach.organization is not None:
        conditions.append(rows.c.organization == reach.organization)
    return [or_(*conditions)]
