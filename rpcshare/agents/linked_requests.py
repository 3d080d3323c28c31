"""Links that answer one request once, in the hands of whoever opens one."""

from __future__ import annotations

import msgspec

from rpcshare.agents.agent import Agent, AgentRequest, RequestKind
from rpcshare.agents.agent_services import AgentServices
from rpcshare.agents.agents import RequestLinkRow
from rpcshare.agents.caller_agents import answer_request
from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.workspaces.workspaces import Reach

__all__ = ["LinkedRequest", "LinkedRequests"]


class LinkedRequest(msgspec.Struct, frozen=True):
    """What a link is for."""

    request: AgentRequest
    agent: Agent
    link: RequestLinkRow
    workspace_name: str
    """Empty: the workspace is gone."""


class LinkedRequests:
    """What the links of a server are for. The token of a link is all the right that is needed."""

    def __init__(self, services: AgentServices, audit: AuditLog) -> None:
        """Tell ``audit`` of answers."""
        self._services = services
        self._audit = audit

    async def find(self, token: str) -> LinkedRequest | None:
        """Return what a link is for; None: there is no such link."""
        agents = await self._services.opened()
        link = await agents.link(token)
        if link is None:
            return None
        request = await agents.request(link.agent, link.request)
        if request is None:
            return None
        agent = await agents.find(link.agent, Reach((), is_all=True))
        return LinkedRequest(request, agent, link, await agents.workspace_name(agent.workspace))

    async def answer(
        self, linked: LinkedRequest, caller: Caller, answer: object, note: object = None
    ) -> AgentRequest:
        """Answer what a link is for, once. ``caller`` is who is told of in the audit log.

        Raises:
            ShareError: INVALID_ARGUMENT: it has been answered, or is more than this one thing.
        """
        request = linked.request
        if request.kind is RequestKind.APPROVAL and answer == "always":
            # It would answer what is asked later, too, which a link does not.
            raise ShareError(ErrorCode.INVALID_ARGUMENT, 'answer: a link answers "once" or "reject"')
        by = f"link of {linked.link.made_by}"
        answered = await answer_request(self._services, request.agent, request.id, answer, note, by)
        self._audit.done(Action.AGENT_ANSWER, caller, agent=request.agent, request=request.id, by="link")
        return answered
