"""Agents that follow a script instead of running opencode: what a message says is what its turn does.

``hello``: a turn with a text. ``say N``: a text in N pieces. ``ask``: a turn that wants an approval.
``question``: one that asks. ``hang``: one that lasts until it is aborted. ``tool``: a turn with a tool.
``fail``: the agent cannot be started. ``spend``: the budget is spent behind it.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec

from rpcshare.agents.agent import (
    Agent,
    AgentRequest,
    AgentStatus,
    MessageState,
    QueuedMessage,
    RequestKind,
    RequestState,
    Spent,
    new_id,
)
from rpcshare.agents.agent_edit import AgentEdit
from rpcshare.agents.agent_services import AgentServices
from rpcshare.agents.agents import Agents
from rpcshare.agents.caller_agents import CallerAgents
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.caller import Caller, Scope
from rpcshare.database.engine import Database
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.bubblewrap import BubblewrapDriver
from rpcshare.shares.service import ShareService
from rpcshare.workspaces.caller_workspaces import CallerWorkspaces, WorkspaceServices
from rpcshare.workspaces.git_clone import GitClone
from rpcshare.workspaces.resources import Bounds
from rpcshare.workspaces.sandboxing import EgressSettings, SandboxedPrograms
from rpcshare.workspaces.workspaces import Reach, Workspaces

__all__ = ["MODELS", "AgentWorld", "ScriptedNode", "choose_model"]

MODELS = ("scripted/small", "scripted/large")

NODE = Caller("node", frozenset({Scope.ADMIN}), source="admin")


def choose_model(wanted: str | None) -> str:
    """Return a model that there is."""
    if wanted is None:
        return MODELS[0]
    if wanted not in MODELS:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"model: must be one of {', '.join(MODELS)}")
    return wanted


class ScriptedNode:
    """Runs turns one after the other, as the node does that runs opencode."""

    def __init__(self, opened: Any, shares: ShareService) -> None:
        self._opened = opened
        self._shares = shares
        self._turning: dict[str, asyncio.Task[None]] = {}  # by agent
        self._again: set[str] = set()
        self._looking: set[asyncio.Task[None]] = set()
        self._changed: dict[str, asyncio.Event] = {}  # by workspace
        self._numbers = itertools.count(1)

    def wake(self, workspace: str) -> None:
        """Look at a workspace soon."""
        changed = self._changed.setdefault(workspace, asyncio.Event())
        changed.set()
        looking = asyncio.get_running_loop().create_task(self._look(workspace, changed))
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def close(self) -> None:
        """End all turns."""
        tasks = [*self._looking, *self._turning.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def call(self, agent: Agent, name: str, arguments: dict[str, Any]) -> object:
        """Answer as opencode would."""
        agents: Agents = await self._opened()
        match name:
            case "fork":
                made = msgspec.structs.replace(
                    agent, id=new_id("ses", descending=True), status=AgentStatus.IDLE, events=0
                )
                created = await self._shares.create(
                    NODE, made.id, [{"type": "session", "data": {"id": made.id, "title": "Fork"}}]
                )
                made = msgspec.structs.replace(made, share_id=created.id, share_url=created.url)
                await agents.add(made, lambda edit: edit.event("status", status="idle"))
                return made.id
            case "diff":
                return [{"file": "a.txt", "additions": 1, "deletions": 0, "patch": "+a", "status": "added"}]
            case "todo":
                return [{"content": "test", "status": "pending", "priority": "high"}]
        if agent.status.is_busy:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "the agent is busy")
        return None

    async def _look(self, workspace: str, changed: asyncio.Event) -> None:
        agents: Agents = await self._opened()
        for agent in await agents.of_workspace(workspace):
            if agent.status is AgentStatus.INITIALIZING:
                await agents.edit(agent.id, _started)
            running = self._turning.get(agent.id)
            if running is None or running.done():
                turns = self._turns(agents, agent.id, changed)
                self._turning[agent.id] = asyncio.get_running_loop().create_task(turns)
            else:
                self._again.add(agent.id)

    async def _turns(self, agents: Agents, agent_id: str, changed: asyncio.Event) -> None:
        while True:
            self._again.discard(agent_id)
            message = await agents.edit(agent_id, _next)
            if message is not None:
                await self._turn(agents, agent_id, message, changed)
            elif agent_id not in self._again:
                return

    async def _turn(
        self, agents: Agents, agent_id: str, message: QueuedMessage, changed: asyncio.Event
    ) -> None:
        agent = await agents.find(agent_id, Reach((), is_all=True))
        what, _, count = message.content.partition(" ")
        if what == "fail":
            await agents.edit(agent_id, lambda edit: edit.become(AgentStatus.FAILED, "no sandbox here"))
            return
        await self._say(agent, message.transcript_id or message.id, "user", message.content)
        if what in ("ask", "question"):
            request = _request(agent_id, what, agents.now())
            await agents.edit(agent_id, lambda edit: _block(edit, request))
            answer = await self._answer(agents, request, changed)
            if answer is None:
                return
            await self._say(agent, new_id("msg"), "assistant", f"answered {answer}")
        elif what == "hang":
            while await self._is_sent(agents, agent_id, message):
                await self._look_again(changed)
            return
        elif what == "say":
            reply = new_id("msg")
            for number in range(int(count or 1)):
                await self._say(agent, reply, "assistant", "word " * (number + 1))
        elif what == "tool":
            await self._tool(agent)
        else:
            await self._say(agent, new_id("msg"), "assistant", f"you said {message.content}")
        await agents.edit(agent_id, lambda edit: _ended(edit, message, is_spent=what == "spend"))

    async def _say(self, agent: Agent, message_id: str, role: str, text: str) -> None:
        now = 1_700_000_000_000 + next(self._numbers)
        message = {"id": message_id, "sessionID": agent.id, "role": role, "time": {"created": now}}
        part = {
            "id": f"prt_{message_id[4:]}",
            "messageID": message_id,
            "sessionID": agent.id,
            "type": "text",
            "text": text,
        }
        data = [{"type": "message", "data": message}, {"type": "part", "data": part}]
        await self._shares.sync(NODE, agent.share_id, None, data)

    async def _tool(self, agent: Agent) -> None:
        message_id = new_id("msg")
        message = {"id": message_id, "sessionID": agent.id, "role": "assistant", "time": {"created": 1}}
        part: dict[str, Any] = {
            "id": f"prt_{message_id[4:]}",
            "messageID": message_id,
            "sessionID": agent.id,
            "type": "tool",
            "tool": "bash",
            "callID": "c",
            "state": {"status": "running", "input": {"command": "ls"}, "title": "list files"},
        }
        await self._shares.sync(
            NODE,
            agent.share_id,
            None,
            [{"type": "message", "data": message}, {"type": "part", "data": part}],
        )
        part["state"] = {**part["state"], "status": "completed", "output": "a.txt"}
        await self._shares.sync(NODE, agent.share_id, None, [{"type": "part", "data": part}])

    async def _answer(self, agents: Agents, request: AgentRequest, changed: asyncio.Event) -> object:
        while True:
            found = await agents.request(request.agent, request.id)
            if found is None or found.state is not RequestState.ASKED:
                return None if found is None else found.answer
            await self._look_again(changed)

    async def _is_sent(self, agents: Agents, agent_id: str, message: QueuedMessage) -> bool:
        return message.id in [each.id for each in await agents.messages(agent_id, MessageState.SENT)]

    async def _look_again(self, changed: asyncio.Event) -> None:
        """Wait for news of the workspace, of this node or, where the database is shared, of another."""
        try:
            async with asyncio.timeout(0.2):
                await changed.wait()
        except TimeoutError:
            return
        changed.clear()


def _started(edit: AgentEdit) -> None:
    if edit.agent.status is AgentStatus.INITIALIZING:  # and not paused meanwhile
        waits = edit.messages(MessageState.QUEUED)
        edit.become(AgentStatus.RUNNING if waits else AgentStatus.IDLE)


def _next(edit: AgentEdit) -> QueuedMessage | None:
    if edit.agent.status is AgentStatus.PAUSED or edit.agent.status.is_over:
        return None
    waiting = edit.messages(MessageState.QUEUED)
    if not waiting:
        if edit.agent.status.is_busy:
            edit.become(AgentStatus.IDLE)
        return None
    message = min(waiting, key=lambda each: (each.delivery.value != "steer", each.number))
    edit.become(AgentStatus.RUNNING)
    edit.move(message, MessageState.SENT, new_id("msg"), told="started")
    return edit.message(message.id)


def _block(edit: AgentEdit, request: AgentRequest) -> None:
    edit.ask(request)
    edit.become(AgentStatus.BLOCKED)


def _ended(edit: AgentEdit, message: QueuedMessage, *, is_spent: bool) -> None:
    found = edit.message(message.id)
    if found is None or found.state is not MessageState.SENT or edit.agent.status.is_over:
        return
    spent = edit.agent.spent
    edit.set(spent=msgspec.structs.replace(spent, dollars=spent.dollars + 0.25, turns=spent.turns + 1))
    edit.move(message, MessageState.ENDED, told="ended")
    if is_spent:
        edit.event("budget", spent=msgspec.to_builtins(Spent()), reason="the budget is spent")
        edit.become(AgentStatus.PAUSED, "the budget is spent")


def _request(agent_id: str, what: str, now: int) -> AgentRequest:
    if what == "ask":
        asked: dict[str, Any] = {
            "permission": "bash",
            "patterns": ["rm -rf build"],
            "always": ["rm *"],
            "metadata": {"command": "rm -rf build"},
        }
        return AgentRequest(new_id("per"), agent_id, RequestKind.APPROVAL, RequestState.ASKED, asked, now)
    question = {
        "question": "Which colour?",
        "header": "Colour",
        "options": [{"label": "red", "description": ""}, {"label": "blue", "description": ""}],
    }
    asked = {"questions": [question]}
    return AgentRequest(new_id("que"), agent_id, RequestKind.QUESTION, RequestState.ASKED, asked, now)


class AgentWorld:
    """Agents and workspaces of one server in this process."""

    def __init__(self, records: Database, shares: ShareService, folder: Path, **options: Any) -> None:
        self.shares = shares
        self.agents = Agents(records, **options)
        self.workspaces = Workspaces(records, folder / "ws")
        self.audit = AuditLog()
        self.node = ScriptedNode(self.opened, shares)
        driver = BubblewrapDriver()
        programs = SandboxedPrograms(self._opened_workspaces, driver, EgressSettings(), self.audit)
        self.workspace_services = WorkspaceServices(
            self._opened_workspaces,
            None,
            programs,
            GitClone(driver),
            bounds=Bounds(),
            snapshots=folder / "snapshots",
            searching=None,
        )
        self.services = AgentServices(
            self.opened, self.node, shares, choose_model, public_url="https://share.example"
        )

    async def opened(self) -> Agents:
        """Return the agents."""
        return self.agents

    async def _opened_workspaces(self) -> Workspaces:
        return self.workspaces

    def workspaces_of(self, caller: Caller) -> CallerWorkspaces:
        """Return the workspaces in the hands of a caller."""
        return CallerWorkspaces(self.workspace_services, caller, self.audit)

    def of(self, caller: Caller) -> CallerAgents:
        """Return the agents in the hands of a caller."""
        return CallerAgents(self.services, caller, self.workspaces_of(caller), self.audit)

    async def start(self, caller: Caller, prompt: str | None = None, **options: object) -> Agent:
        """Start an agent on a workspace of its own."""
        made = await self.workspaces_of(caller).create({"name": f"w{new_id('w')}"})
        given = {"workspace": made.id, **options, **({} if prompt is None else {"prompt": prompt})}
        return await self.of(caller).start(given)
