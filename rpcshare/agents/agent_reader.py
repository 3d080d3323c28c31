"""What one caller reads of agents: rows, events as they come, files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress

from rpcshare.agents import steering
from rpcshare.agents.agent import (
    Agent,
    AgentRequest,
    AgentStatus,
    MessageState,
    QueuedMessage,
    is_session_id,
    unknown_agent,
)
from rpcshare.agents.agent_services import AgentServices
from rpcshare.agents.agent_watch import AgentSubscription, watch_agent
from rpcshare.agents.agents import AgentPage, Agents
from rpcshare.agents.watched_events import AgentCursor
from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.subscriptions import Subscription
from rpcshare.workspaces.caller_rights import AGENTS, CallerRights
from rpcshare.workspaces.caller_workspaces import CallerFiles, CallerWorkspaces

__all__ = ["AgentReader"]

_MAX_PAGE = 200


class AgentReader:
    """What one caller may read of agents, by its rights (:mod:`~rpcshare.workspaces.caller_rights`).

    Of an agent of somebody else's a caller is told nothing: its ID is as good as none. Every method raises
    ShareError: UNAUTHORIZED, FORBIDDEN, INVALID_ARGUMENT, STORAGE_UNAVAILABLE, and where it takes an ID
    SESSION_NOT_FOUND.
    """

    def __init__(
        self, services: AgentServices, caller: Caller, workspaces: CallerWorkspaces, audit: AuditLog
    ) -> None:
        """Act for ``caller`` and tell ``audit`` of it."""
        self._services = services
        self._caller = caller
        self._workspaces = workspaces
        self._audit = audit
        self._rights = CallerRights(AGENTS, caller, audit)

    async def list(
        self,
        *,
        status: object = None,
        workspace: str | None = None,
        cursor: str | None = None,
        limit: object = None,
    ) -> AgentPage:
        """Return a page of the agents that the caller may use, the newest first: at most 200, or 50."""
        with self._rights.checked(Action.AGENTS_LIST):
            reach = self._rights.reach()
            wanted = None
            if status is not None:
                try:
                    wanted = AgentStatus(str(status))
                except ValueError:
                    message = f"status: must be one of {', '.join(AgentStatus)}"
                    raise ShareError(ErrorCode.INVALID_ARGUMENT, message) from None
            if limit is None:
                limit = 50
            if type(limit) is not int or not 1 <= limit <= _MAX_PAGE:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, f"limit: must be 1 to {_MAX_PAGE}")
            agents = await self._services.opened()
            return await agents.list(reach, status=wanted, workspace=workspace, cursor=cursor, limit=limit)

    async def get(self, agent_id: str) -> Agent:
        """Return an agent."""
        with self._rights.checked(Action.AGENT_READ):
            return (await self._find(agent_id))[1]

    async def of_session(self, session_id: str) -> Agent | None:
        """Return the agent of a session; None: it is none, or not in this caller's hands."""
        if not self._rights.is_any or not is_session_id(session_id):
            return None
        try:
            return await self.get(session_id)
        except ShareError as exc:
            if exc.code is ErrorCode.SESSION_NOT_FOUND:
                return None
            raise

    async def of_sessions(self, session_ids: Sequence[str]) -> Sequence[Agent]:
        """Return those of the sessions that are agents which the caller may use; to others there are none."""
        try:
            reach = self._rights.reach()
        except ShareError:
            return []
        with self._rights.checked(Action.AGENTS_LIST):
            wanted = [each for each in session_ids if is_session_id(each)]
            if not wanted:
                return []
            return await (await self._services.opened()).find_all(wanted, reach)

    async def children(self, agent_id: str) -> Sequence[Agent]:
        """Return the sub-agents of an agent."""
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
            return await agents.children(agent.id)

    async def queue(self, agent_id: str) -> Sequence[QueuedMessage]:
        """Return the messages that wait, and the one whose turn is under way."""
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
            return await agents.messages(agent.id, MessageState.SENT, MessageState.QUEUED)

    async def approvals(self, agent_id: str) -> Sequence[AgentRequest]:
        """Return what somebody has to answer: approvals and questions, the oldest first."""
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
            return await agents.requests(agent.id)

    async def request(self, agent_id: str, request_id: str) -> AgentRequest:
        """Return an approval or a question. Raises ShareError: INVALID_ARGUMENT: there is none."""
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
            request = await agents.request(agent.id, request_id)
            if request is None:
                raise steering.unknown_request()
            return request

    async def files(self, agent_id: str) -> CallerFiles:
        """Return the files of its workspace."""
        return self._workspaces.files((await self.get(agent_id)).workspace)

    async def watch(self, agent_id: str, cursor: object = None) -> AgentSubscription:
        """Return the events of an agent from a cursor on (:mod:`~rpcshare.agents.watched_events`).

        They end with a ShareError when the caller's credential does.
        """
        with self._rights.checked(Action.AGENT_READ):
            return await self._watched(agent_id, AgentCursor.parse(cursor))

    async def changes(self, agent_id: str, heartbeat: float) -> AsyncIterator[int | None]:
        """Yield the number of an agent's last event whenever it is another, without end.

        None is yielded after ``heartbeat`` seconds without one. The first number comes at once.
        """
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
        number = -1
        with agents.news.waiting(agent.id) as changed:
            since = time.monotonic()
            while True:
                changed.clear()
                agent = await agents.find(agent.id, self._rights.reach())
                if agent.events != number:
                    number, since = agent.events, time.monotonic()
                    yield number
                    continue
                if time.monotonic() - since >= heartbeat:
                    since = time.monotonic()
                    yield None
                patience = 0.5 if agents.is_shared else heartbeat
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await changed.wait()

    async def _find(self, agent_id: str) -> tuple[Agents, Agent]:
        reach = self._rights.reach()
        if not is_session_id(agent_id):
            raise unknown_agent()
        agents = await self._services.opened()
        return agents, await agents.find(agent_id, reach)

    async def _watched(
        self, agent_id: str, cursor: AgentCursor, until: str | None = None
    ) -> AgentSubscription:
        agents, agent = await self._find(agent_id)

        def subscribe(sync_count: int | None) -> Awaitable[Subscription]:
            return self._services.shares.subscribe(self._caller, agent.share_id, sync_count)

        watched = await watch_agent(agents, agent, cursor, subscribe, until=until)
        standing = self._caller.standing
        if standing is not None:
            message = "Unauthorized: the credential has expired or been revoked"
            over = ShareError(ErrorCode.UNAUTHORIZED, message)
            watched.on_end(standing.on_end(lambda: watched.fail(over)))
        return watched
