"""What the model gateway asks of the agents of one workspace: who may ask a model, and who pays."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rpcshare.agents.agent import Agent, AgentStatus
from rpcshare.agents.agent_edit import AgentEdit
from rpcshare.agents.agents import Agents
from rpcshare.agents.owners import caller_of
from rpcshare.agents.session_runner import SessionRunner
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.metering import Usage
from rpcshare.gateway.spending import Spending
from rpcshare.workspaces.workspaces import Reach

__all__ = ["WorkspaceModelSessions"]


class WorkspaceModelSessions:
    """Answers for the sessions of one process; see :class:`rpcshare.gateway.metering.ModelSessions`."""

    def __init__(self, agents: Agents, sessions: Callable[[], dict[str, SessionRunner]]) -> None:
        """Take the rows, and what returns the sessions that the process has."""
        self._agents = agents
        self._sessions = sessions
        self._spending: dict[str, Spending] = {}
        self._admitted: dict[str | None, list[str]] = {}  # whose requests are in flight, by what was said

    async def admit(self, session_id: str | None, model: str) -> Caller:
        """Allow one request to the agent's own model."""
        agent = await self._agents.find(self._root(session_id), Reach((), is_all=True))
        if agent.status.is_over:
            raise _forbidden("the agent has ended")
        if not await self._agents.is_owner_enabled(agent.owner):
            raise _forbidden("the account of its owner is disabled")
        if model != agent.model:
            raise _forbidden(f"this agent uses {agent.model}")
        why = agent.spent.exceeds(msgspec.structs.replace(agent.budget, turns=None))
        if why is not None:
            raise _forbidden(why)
        await (await self._spending_of(agent)).admit()
        self._admitted.setdefault(session_id, []).append(agent.id)
        return caller_of(agent.owner)

    async def charge(self, session_id: str | None, model: str, usage: Usage) -> None:  # noqa: ARG002 -- as it is asked
        """Count what a request has used, and pause the agent whose budget is spent by it."""
        # Its session may be gone by now, and is in flight all the same.
        admitted = self._admitted[session_id]
        root = admitted.pop()
        if not admitted:
            del self._admitted[session_id]
        spending = self._spending.get(root)
        if spending is not None:
            await spending.charge(usage)
        if not usage.tokens and not usage.cost:
            return

        def count(edit: AgentEdit) -> None:
            spent = edit.agent.spent
            edit.set(
                spent=msgspec.structs.replace(
                    spent,
                    dollars=spent.dollars + usage.cost,
                    input=spent.input + usage.input,
                    output=spent.output + usage.output,
                    cache_read=spent.cache_read + usage.cache_read,
                    cache_write=spent.cache_write + usage.cache_write,
                )
            )
            edit.event("budget", cost=edit.agent.spent.dollars, tokens=edit.agent.spent.tokens)
            why = edit.agent.spent.exceeds(msgspec.structs.replace(edit.agent.budget, turns=None))
            if why is not None and not edit.agent.status.is_over:
                edit.become(AgentStatus.PAUSED, why)

        await self._agents.edit(root, count)

    def _root(self, session_id: str | None) -> str:
        sessions = self._sessions()
        session = sessions.get(session_id or "")
        if session is not None:
            return session.root.id
        roots = {each.root.id for each in sessions.values()}
        if len(roots) == 1:
            return next(iter(roots))
        raise _forbidden("the gateway knows no such session")

    async def _spending_of(self, agent: Agent) -> Spending:
        budget, spent = agent.budget, agent.spent
        spending = self._spending.get(agent.id)
        if spending is None:
            usage = Usage(spent.input, spent.output, spent.cache_read, spent.cache_write, spent.dollars)
            spending = Spending(dollars=budget.dollars, tokens=budget.tokens, spent=usage)
            self._spending[agent.id] = spending
        elif (spending.dollars, spending.tokens) != (budget.dollars, budget.tokens):
            await spending.change(dollars=budget.dollars, tokens=budget.tokens)
        return spending


def _forbidden(why: str) -> ShareError:
    return ShareError(ErrorCode.FORBIDDEN, f"Forbidden: {why}")
