"""Agents, and shares, of sessions that opencode has made by itself: those of sub-agents, and forks."""

from __future__ import annotations

import logging

import msgspec

from rpcshare.agents.agent import Agent, AgentStatus, JSONObject, Spent, is_session_id
from rpcshare.agents.agents import Agents
from rpcshare.agents.owners import caller_of
from rpcshare.agents.redacting import shown_title
from rpcshare.agents.transcript import AGENTS
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.service import ShareService
from rpcshare.workspaces.workspaces import Reach

__all__ = ["SessionAdoption"]

logger = logging.getLogger("rpcshare.agents")

_MOST_SESSIONS = 1000
"""That one process's sub-agents and agents may be, before further sub-agents are not followed."""


class SessionAdoption:
    """Makes agents of the sessions of one workspace's process, which may say anything."""

    def __init__(self, agents: Agents, shares: ShareService, workspace: str) -> None:
        """Make them in ``workspace``."""
        self._agents = agents
        self._shares = shares
        self._workspace = workspace
        self._has_warned = False

    async def adopt_child(
        self, like: Agent, session_id: str, info: JSONObject, *, parent: str, count: int
    ) -> Agent | None:
        """Make an agent of a sub-agent's session; None: it is not followed, as the log says once.

        Args:
            like: the agent that people talk to.
            session_id: as opencode names it.
            info: what opencode tells of it.
            parent: the session that it is a part of.
            count: how many sessions the process has.
        """
        if count >= _MOST_SESSIONS:
            self._warn("opencode has more sessions than are kept")
            return None
        try:
            return await self.adopt(like, session_id, info, parent=parent)
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            self._warn(exc.message)
            return None

    async def adopt(self, like: Agent, session_id: str, info: JSONObject, *, parent: str | None) -> Agent:
        """Make an agent, and a share, of a session that opencode has made; the same again finds them.

        Raises:
            ShareError: INVALID_ARGUMENT: there is one already that is not this one. Whoever controls a
                sandbox names sessions as they like, those of others too.
        """
        known = None if not is_session_id(session_id) else await self._known(session_id)
        if known is not None and (known.workspace, known.parent) == (self._workspace, parent):
            return known
        if known is not None or not is_session_id(session_id):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "opencode has made a session that is another's")
        owner = caller_of(like.owner)
        row = await self._shares.row(AGENTS, like.share_id)
        # What a password protects has parts that nobody has chosen one for.
        is_private = row.is_private or row.has_password
        visibility = "private" if is_private else "organization" if row.is_for_organization else "link"
        created = await self._shares.create(
            owner,
            session_id,
            [{"type": "session", "data": info}],
            {"visibility": visibility},
            # The owner's shares of other sessions have other parents. One was made by a server that has
            # ended before it could make the agent.
            if_there=lambda session: parent is not None and _parent_of(session) == parent,
        )
        now = self._agents.now()
        agent = Agent(
            id=session_id,
            owner=like.owner,
            workspace=like.workspace,
            share_id=created.id,
            share_url=created.url,
            status=AgentStatus.IDLE,
            title=shown_title(str(info.get("title") or "")),
            model=like.model,
            mode=str(info.get("agent") or like.mode)[:64].replace("\0", ""),
            permission=like.permission,
            budget=like.budget,
            spent=Spent(),
            parent=parent,
            error=None,
            created_at=now,
            last_active_at=now,
        )
        await self._agents.add(agent, lambda edit: edit.event("status", status=edit.agent.status.value))
        return agent

    async def _known(self, session_id: str) -> Agent | None:
        try:
            return await self._agents.find(session_id, Reach((), is_all=True))
        except ShareError:
            return None

    def _warn(self, why: str) -> None:
        # Once: whoever controls a sandbox could fill the log.
        if not self._has_warned:
            self._has_warned = True
            logger.warning("a session is not followed: %s", why)


def _parent_of(session: bytes) -> object:
    return msgspec.json.decode(session).get("parentID")
