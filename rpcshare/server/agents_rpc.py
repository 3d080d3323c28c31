"""``Agents``, ``Agent`` and ``Approval``: agents in the hands of a caller (PROTOCOL.md, "agents")."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from rpcshare.agents.agent import AgentRequest, RequestState
from rpcshare.agents.caller_agents import CallerAgents
from rpcshare.agents.watched_events import OwnEvent
from rpcshare.auth.caller import Caller
from rpcshare.rpc import Codec, ReadableStream, RpcTarget, Stub, rpc_method
from rpcshare.server.plain_json import plain_json, plain_options
from rpcshare.server.rpc_results import preencoded
from rpcshare.server.subscriptions import CallbackSubscription, event_stream
from rpcshare.server.workspaces_rpc import FilesRpc
from rpcshare.shares.event_source import EventSource
from rpcshare.shares.events import Event

__all__ = ["AgentListOptions", "AgentRpc", "AgentsRpc", "ApprovalRpc", "ResumeOptions", "SendOptions"]


class AgentListOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``list`` takes."""

    status: str | None = None
    workspace: str | None = None
    cursor: str | None = None
    limit: int | None = None


class SendOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``send`` takes beside the content."""

    id: str | None = None
    attachments: list[Any] | None = None
    delivery: str | None = None


class ResumeOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``resume`` takes."""

    budget: dict[str, Any] | None = None


class AgentsRpc(RpcTarget):
    """The agents in the hands of one caller, for as long as that one's credential holds."""

    def __init__(self, agents: CallerAgents, caller: Caller, codec: Codec) -> None:
        self._agents = agents
        self._caller = caller
        self._codec = codec

    @rpc_method("start(options)")
    async def start(self, options: object) -> AgentRpc:
        """Start an agent, and return it at once; its process starts in the background."""
        started = await self._agents.start(plain_options(options, "options"))
        return AgentRpc(self._agents, started.id, self._caller, self._codec)

    @rpc_method("list(options?)")
    async def list(self, options: AgentListOptions | None = None) -> dict[str, Any]:
        """Return a page of agents, the newest first."""
        wanted = options or AgentListOptions()
        page = await self._agents.list(
            status=wanted.status, workspace=wanted.workspace, cursor=wanted.cursor, limit=wanted.limit
        )
        return {"agents": [each.described() for each in page.agents], "cursor": page.cursor}

    @rpc_method("get(sessionID)")
    async def get(self, session_id: str) -> AgentRpc:
        """Return an agent as a capability."""
        await self._agents.get(session_id)
        return AgentRpc(self._agents, session_id, self._caller, self._codec)


class AgentRpc(RpcTarget):
    """One agent."""

    def __init__(self, agents: CallerAgents, agent_id: str, caller: Caller, codec: Codec) -> None:
        self._agents = agents
        self._id = agent_id
        self._caller = caller
        self._codec = codec

    @rpc_method("info()")
    async def info(self) -> dict[str, Any]:
        """Return what is known of it."""
        return (await self._agents.get(self._id)).described()

    @rpc_method("send(content, options?)")
    async def send(self, content: str, options: SendOptions | None = None) -> dict[str, Any]:
        """Give it a message; return once that is kept."""
        wanted = options or SendOptions()
        attachments = None if wanted.attachments is None else plain_json(wanted.attachments, "attachments")
        sent = await self._agents.send(
            self._id,
            content,
            message_id=wanted.id,
            attachments=attachments,
            delivery=wanted.delivery,
        )
        return {"messageID": sent.id}

    @rpc_method("ask(content)")
    async def ask(self, content: str) -> ReadableStream:
        """Give it a message, and return the events from now until its turn has ended."""
        _, events = await self._agents.ask(self._id, content)

        async def opened() -> EventSource:
            return events

        return ReadableStream(event_stream(opened, self._caller, self._codec, self._carried))

    @rpc_method("command(name, arguments?)")
    async def command(self, name: str, arguments: str = "") -> dict[str, Any]:
        """Have opencode run one of its commands, as a message of its own."""
        return {"messageID": (await self._agents.command(self._id, name, arguments)).id}

    @rpc_method("queue()")
    async def queue(self) -> list[dict[str, Any]]:
        """Return the messages that wait, and the one whose turn is under way."""
        return [each.described() for each in await self._agents.queue(self._id)]

    @rpc_method("unqueue(messageID)")
    async def unqueue(self, message_id: str) -> dict[str, Any]:
        """Take a message out of the queue, if it still waits."""
        return {"removed": await self._agents.unqueue(self._id, message_id)}

    @rpc_method("watch(cursor?)")
    async def watch(self, cursor: str | None = None) -> ReadableStream:
        """Return its events as a stream; who reads it slowly gets what waits merged."""
        # What is wrong is said now, and not when somebody reads.
        subscribe = partial(self._agents.watch, self._id, cursor)
        await (await subscribe()).aclose()
        return ReadableStream(event_stream(subscribe, self._caller, self._codec, self._carried))

    @rpc_method("subscribe(onEvent, cursor?)")
    async def subscribe(self, on_event: Stub, cursor: str | None = None) -> CallbackSubscription:
        """Call ``onEvent`` with its events until the subscription is disposed of."""
        events = await self._agents.watch(self._id, cursor)
        return CallbackSubscription(events, on_event, self._caller, self._codec, self._carried)

    @rpc_method("approvals()")
    async def approvals(self) -> list[dict[str, Any]]:
        """Return what somebody has to answer, each with what answers it."""
        requests = await self._agents.approvals(self._id)
        return [{**each.described(), "approval": self._approval(each.id)} for each in requests]

    @rpc_method("approval(id)")
    async def approval(self, approval_id: str) -> ApprovalRpc:
        """Return what answers one approval or question."""
        await self._agents.request(self._id, approval_id)
        return self._approval(approval_id)

    @rpc_method("abort()")
    async def abort(self) -> dict[str, Any]:
        """End the turn under way."""
        await self._agents.abort(self._id)
        return {"success": True}

    @rpc_method("pause()")
    async def pause(self) -> dict[str, Any]:
        """Begin no further turn until it is resumed."""
        await self._agents.pause(self._id)
        return {"success": True}

    @rpc_method("resume(options?)")
    async def resume(self, options: ResumeOptions | None = None) -> dict[str, Any]:
        """Go on with an agent that is paused or interrupted."""
        budget = None if options is None or options.budget is None else options.budget
        await self._agents.resume(self._id, None if budget is None else plain_options(budget, "budget"))
        return {"success": True}

    @rpc_method("terminate()")
    async def terminate(self) -> dict[str, Any]:
        """End it for good; its transcript stays."""
        await self._agents.terminate(self._id)
        return {"success": True}

    @rpc_method("fork(messageID?)")
    async def fork(self, message_id: str | None = None) -> AgentRpc:
        """Return a new agent that has the transcript up to a message, or all of it."""
        made = await self._agents.fork(self._id, message_id)
        return AgentRpc(self._agents, made.id, self._caller, self._codec)

    @rpc_method("revert(messageID)")
    async def revert(self, message_id: str) -> dict[str, Any]:
        """Take back a message and all behind it, with what they did to files."""
        await self._agents.revert(self._id, message_id)
        return {"success": True}

    @rpc_method("unrevert()")
    async def unrevert(self) -> dict[str, Any]:
        """Restore what was taken back."""
        await self._agents.unrevert(self._id)
        return {"success": True}

    @rpc_method("diff()")
    async def diff(self) -> object:
        """Return what has changed in its workspace."""
        return await self._agents.diff(self._id)

    @rpc_method("todo()")
    async def todo(self) -> object:
        """Return its list of to-dos."""
        return await self._agents.todo(self._id)

    @rpc_method("files()")
    async def files(self) -> FilesRpc:
        """Return the files of its workspace."""
        return FilesRpc(await self._agents.files(self._id))

    def _approval(self, approval_id: str) -> ApprovalRpc:
        return ApprovalRpc(self._agents, self._id, approval_id)

    def _carried(self, event: Event) -> object:
        """Return an event as the wire has it: with what answers it, where it asks for an answer."""
        if isinstance(event, OwnEvent) and event.told["type"] in ("approval", "question"):
            told = event.told
            if told.get("state") == RequestState.ASKED.value:
                return {**told, "approval": self._approval(str(told["id"]))}
        return preencoded(event)


class ApprovalRpc(RpcTarget):
    """What answers one approval or question, once."""

    def __init__(self, agents: CallerAgents, agent_id: str, approval_id: str) -> None:
        self._agents = agents
        self._agent_id = agent_id
        self._id = approval_id

    @rpc_method("info()")
    async def info(self) -> dict[str, Any]:
        """Return what is asked, and what has been answered."""
        request: AgentRequest = await self._agents.request(self._agent_id, self._id)
        return request.described()

    @rpc_method("answer(answer, note?)")
    async def answer(self, answer: object, note: str | None = None) -> dict[str, Any]:
        """Answer it; return what is known of it then."""
        given = plain_json(answer, "answer")
        return (await self._agents.answer(self._agent_id, self._id, given, note)).described()

    @rpc_method("link()")
    async def link(self) -> dict[str, Any]:
        """Return a URL that answers this one thing once, within a day, for whoever opens it."""
        made = await self._agents.link(self._agent_id, self._id)
        return {"url": made.url, "expiresAt": made.expires_at}
