"""A real server whose agents follow a script instead of running opencode.

What a prompt begins with is what its turn does:

- ``run COMMAND``: asks whether it may run a command;
- ``edit TEXT``: asks whether it may change a file, with a diff that has ``TEXT`` in it;
- ``question``: asks three questions;
- ``wait``: goes on until it is stopped;
- ``fail``: ends the agent as failed;
- ``err``: ends its turn by an error;
- anything else: answers, and costs a cent and 100 tokens.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from rpcshare.agents.agent import (
    Agent,
    AgentRequest,
    AgentStatus,
    JSONObject,
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
from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.service import ShareService
from rpcshare.workspaces.caller_workspaces import WorkspaceServices
from rpcshare.workspaces.workspaces import Reach
from support.running_server import RunningServer

__all__ = ["MODELS", "ScriptedAgents", "ScriptedNode", "run_server", "scripted_services"]

MODELS = ("scripted/large", "scripted/small")

DIFF = """--- a/src/main.py
+++ b/src/main.py
@@ -1,3 +1,3 @@
 def main() -> None:
-    print("hello")
+    print("{text}")

"""

QUESTIONS = [
    {
        "question": "Which database?",
        "header": "Database",
        "options": [
            {"label": "SQLite", "description": "One file"},
            {"label": "PostgreSQL", "description": "A server"},
        ],
    },
    {
        "question": "Which parts?",
        "header": "Parts",
        "multiple": True,
        "options": [{"label": "Pages", "description": ""}, {"label": "API", "description": ""}],
    },
    {"question": "What is it called?", "header": "Name", "options": []},
]

_NODE = Caller("node", frozenset({Scope.ADMIN}), source="admin")


class ScriptedNode:
    """Runs agents by their prompts."""

    def __init__(self) -> None:
        self.services: AgentServices | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    def wake(self, workspace: str) -> None:
        """Look at a workspace."""
        task = asyncio.create_task(self._run(workspace))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def call(self, agent: Agent, name: str, arguments: JSONObject) -> object:
        """Answer as opencode would."""
        if name == "diff":
            patch = DIFF.replace("{text}", "</script><b>changed</b>")
            return [{"file": "src/main.py", "additions": 1, "deletions": 1, "patch": patch}]
        if name == "todo":
            return [{"content": "write tests", "status": "pending", "priority": "high"}]
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{name} of {agent.id}: is not in the script")

    async def _run(self, workspace: str) -> None:
        assert self.services is not None
        agents = await self.services.opened()
        async with self._locks.setdefault(workspace, asyncio.Lock()):
            for agent in await agents.of_workspace(workspace):
                while await self._step(agents, agent.id):
                    pass

    async def _step(self, agents: Agents, agent_id: str) -> bool:
        """Do what is next for an agent; return whether there was something."""
        synced: list[JSONObject] = []

        def edit(edit: AgentEdit) -> bool:
            return _next(edit, synced)

        did = await agents.edit(agent_id, edit)
        if synced:
            assert self.services is not None
            share_id = (await agents.find(agent_id, Reach((), is_all=True))).share_id
            await self.services.shares.sync(_NODE, share_id, None, synced)
        return did


def _next(edit: AgentEdit, synced: list[JSONObject]) -> bool:
    agent = edit.agent
    if agent.status is AgentStatus.INITIALIZING:
        edit.become(AgentStatus.RUNNING if edit.messages(MessageState.QUEUED) else AgentStatus.IDLE)
        return True
    sent = edit.messages(MessageState.SENT)
    if agent.status is not AgentStatus.RUNNING:
        return False
    if not sent:
        waiting = edit.messages(MessageState.QUEUED)
        if not waiting:
            edit.become(AgentStatus.IDLE)
            return False
        _begin(edit, waiting[0], synced)
        return True
    return _go_on(edit, sent[0], synced)


def _begin(edit: AgentEdit, message: QueuedMessage, synced: list[JSONObject]) -> None:
    transcript_id = new_id("msg")
    edit.move(message, MessageState.SENT, transcript_id, told="started")
    synced += _message(edit.agent, transcript_id, "user", message.content)
    word, _, rest = message.content.partition(" ")
    asked: JSONObject | None = None
    kind = RequestKind.APPROVAL
    if word == "run":
        asked = {
            "permission": "bash",
            "patterns": [rest],
            "always": [f"{rest.split(' ')[0]} *"],
            "metadata": {"command": rest, "description": "As the script says"},
        }
    elif word == "edit":
        metadata = {"filepath": "/workspace/src/main.py", "diff": DIFF.replace("{text}", rest)}
        asked = {"permission": "edit", "patterns": ["src/main.py"], "always": ["*"], "metadata": metadata}
    elif word == "question":
        kind, asked = RequestKind.QUESTION, {"questions": QUESTIONS}
    if asked is not None:
        prefix = "per" if kind is RequestKind.APPROVAL else "que"
        request = AgentRequest(new_id(prefix), edit.agent.id, kind, RequestState.ASKED, asked, edit.now)
        edit.ask(request)
        edit.become(AgentStatus.BLOCKED)


_said: set[str] = set()


def _go_on(edit: AgentEdit, message: QueuedMessage, synced: list[JSONObject]) -> bool:
    word = message.content.partition(" ")[0]
    if word == "wait":
        return False
    if word == "fail":
        edit.become(AgentStatus.FAILED, "the script says so")
        return False
    if word == "err":
        edit.move(message, MessageState.ENDED, told="ended", reason="error", error="the script\nsays no")
        edit.become(AgentStatus.IDLE, "the script\nsays no")
        return True
    answers = [each.answer for each in edit.requests(RequestState.ANSWERED)][-1:]
    said = f"Answered: {answers[0]}" if answers and word in ("run", "edit", "question") else "It is done."
    if message.id not in _said:  # first it is in the share, and then its turn has ended
        _said.add(message.id)
        synced += _message(edit.agent, new_id("msg"), "assistant", said)
        return True
    edit.move(message, MessageState.ENDED, told="ended")
    spent = edit.agent.spent
    edit.set(spent=Spent(spent.dollars + 0.01, spent.input + 90, spent.output + 10, turns=spent.turns + 1))
    if edit.agent.spent.exceeds(edit.agent.budget):
        edit.event("budget", spent=True)
        edit.become(AgentStatus.PAUSED)
    return True


def _message(agent: Agent, message_id: str, role: str, text: str) -> list[JSONObject]:
    now = int(time.time() * 1000)
    return [
        {
            "type": "message",
            "data": {
                "id": message_id,
                "role": role,
                "sessionID": agent.id,
                "time": {"created": now, "completed": now},
            },
        },
        {
            "type": "part",
            "data": {"id": new_id("prt"), "messageID": message_id, "type": "text", "text": text},
        },
    ]


def scripted_services(workspaces: WorkspaceServices, shares: ShareService, public_url: str) -> AgentServices:
    """Return agents that follow the script, on these workspaces."""
    opened: list[Agents] = []

    async def open_agents() -> Agents:
        if not opened:
            opened.append(Agents((await workspaces.opened())._database))
        return opened[0]

    def choose(wanted: str | None) -> str:
        if wanted is not None and wanted not in MODELS:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"model: must be one of {', '.join(MODELS)}")
        return wanted or MODELS[0]

    node = ScriptedNode()
    services = AgentServices(open_agents, node, shares, choose, public_url=public_url)
    services.model_names = lambda: MODELS
    node.services = services
    return services


class ScriptedAgents(RunningServer):
    """``rpcshare serve --agents=local`` with such agents."""

    command = (
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r});"
        "from support.scripted_agents import run_server; run_server()",
    )


def run_server() -> None:
    """Be the command ``rpcshare``, whose agents follow the script."""
    from rpcshare.cli import main
    from rpcshare.server import run

    create_app = run.create_app

    def create_scripted(settings: Any, service: Any, authenticator: Any, base_url: str, **rest: Any) -> Any:
        rest["agents"] = scripted_services(rest["workspaces"], service, base_url)
        return create_app(settings, service, authenticator, base_url, **rest)

    run.create_app = create_scripted
    main(prog_name="rpcshare")
