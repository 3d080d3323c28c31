"""Agents in the client for programs without an event loop."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from rpcshare.client.agents import (
    Agent,
    AgentEvent,
    AgentEvents,
    AgentInfo,
    AgentPage,
    AgentRequest,
    Agents,
    AgentStatus,
    ApprovalLink,
    Budget,
    QueuedMessage,
)

__all__ = ["BlockingAgent", "BlockingAgents"]

T = TypeVar("T")


class Run(Protocol):
    """Does work on the client's loop, and waits for it."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> T: ...


class BlockingAgents:
    """:class:`~rpcshare.client.agents.Agents`, with methods that return when they are done."""

    def __init__(self, agents: Agents, run: Run) -> None:
        """Made by :class:`~rpcshare.client.blocking.BlockingShareClient`."""
        self._agents = agents
        self._run = run

    def start(
        self,
        workspace: str,
        prompt: str | None = None,
        *,
        title: str | None = None,
        model: str | None = None,
        agent: str | None = None,
        permission: Sequence[Mapping[str, str]] | Mapping[str, str] | None = None,
        resources: Mapping[str, object] | None = None,
        budget: Budget | None = None,
    ) -> BlockingAgent:
        """See :meth:`Agents.start`."""
        started = self._agents.start(
            workspace,
            prompt,
            title=title,
            model=model,
            agent=agent,
            permission=permission,
            resources=resources,
            budget=budget,
        )
        return BlockingAgent(self._run(started), self._run)

    def list(
        self,
        *,
        status: AgentStatus | None = None,
        workspace: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> AgentPage:
        """See :meth:`Agents.list`."""
        return self._run(self._agents.list(status=status, workspace=workspace, cursor=cursor, limit=limit))

    def get(self, session_id: str) -> BlockingAgent:
        """See :meth:`Agents.get`."""
        return BlockingAgent(self._agents.get(session_id), self._run)


class BlockingAgent:
    """:class:`~rpcshare.client.agents.Agent`, with methods that return when they are done."""

    def __init__(self, agent: Agent, run: Run) -> None:
        """Made by :class:`BlockingAgents`."""
        self._agent = agent
        self._run = run

    def __repr__(self) -> str:
        return f"BlockingAgent({self.id!r})"

    @property
    def id(self) -> str:
        """The agent's id."""
        return self._agent.id

    def info(self) -> AgentInfo:
        """See :meth:`Agent.info`."""
        return self._run(self._agent.info())

    def send(
        self,
        content: str,
        *,
        message_id: str | None = None,
        attachments: Sequence[Mapping[str, str]] = (),
        delivery: Literal["queue", "steer"] = "queue",
    ) -> str:
        """See :meth:`Agent.send`."""
        return self._run(
            self._agent.send(content, message_id=message_id, attachments=attachments, delivery=delivery)
        )

    def ask(self, content: str) -> Iterator[AgentEvent]:
        """Yield the events of a turn; see :meth:`Agent.ask`."""
        return self._events(self._agent.ask(content))

    def watch(self, cursor: str | None = None) -> Iterator[AgentEvent]:
        """Yield events as they come; see :meth:`Agent.watch`."""
        return self._events(self._agent.watch(cursor))

    def command(self, name: str, arguments: str = "") -> str:
        """See :meth:`Agent.command`."""
        return self._run(self._agent.command(name, arguments))

    def queue(self) -> list[QueuedMessage]:
        """See :meth:`Agent.queue`."""
        return self._run(self._agent.queue())

    def unqueue(self, message_id: str) -> bool:
        """See :meth:`Agent.unqueue`."""
        return self._run(self._agent.unqueue(message_id))

    def approvals(self) -> list[AgentRequest]:
        """See :meth:`Agent.approvals`."""
        return self._run(self._agent.approvals())

    def answer(
        self, approval_id: str, answer: str | Sequence[Sequence[str]], note: str | None = None
    ) -> AgentRequest:
        """See :meth:`Agent.answer`."""
        return self._run(self._agent.answer(approval_id, answer, note))

    def link(self, approval_id: str) -> ApprovalLink:
        """See :meth:`Agent.link`."""
        return self._run(self._agent.link(approval_id))

    def abort(self) -> None:
        """See :meth:`Agent.abort`."""
        self._run(self._agent.abort())

    def pause(self) -> None:
        """See :meth:`Agent.pause`."""
        self._run(self._agent.pause())

    def resume(self, budget: Budget | None = None) -> None:
        """See :meth:`Agent.resume`."""
        self._run(self._agent.resume(budget))

    def terminate(self) -> None:
        """See :meth:`Agent.terminate`."""
        self._run(self._agent.terminate())

    def fork(self, message_id: str | None = None) -> BlockingAgent:
        """See :meth:`Agent.fork`."""
        return BlockingAgent(self._run(self._agent.fork(message_id)), self._run)

    def revert(self, message_id: str) -> None:
        """See :meth:`Agent.revert`."""
        self._run(self._agent.revert(message_id))

    def unrevert(self) -> None:
        """See :meth:`Agent.unrevert`."""
        self._run(self._agent.unrevert())

    def diff(self) -> list[dict[str, Any]]:
        """See :meth:`Agent.diff`."""
        return self._run(self._agent.diff())

    def todo(self) -> list[dict[str, Any]]:
        """See :meth:`Agent.todo`."""
        return self._run(self._agent.todo())

    def _events(self, events: AgentEvents) -> Iterator[AgentEvent]:
        try:
            while True:
                try:
                    event = self._run(anext(events))
                except StopAsyncIteration:
                    return
                yield event
        finally:
            self._run(events.aclose())
