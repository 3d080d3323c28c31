"""Agents that run a real opencode in real sandboxes, with a scripted provider of a model."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from agents.scripted_model import ScriptedModel
from opencode.opencode_runner import BINARY
from rpcshare.agents.agent import Agent, AgentStatus
from rpcshare.agents.agent_services import AgentServices
from rpcshare.agents.caller_agents import CallerAgents
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.gateway.models import parse_model_tables
from rpcshare.server.agents_opening import opened_agents
from rpcshare.server.gateway_opening import opened_gateway
from rpcshare.server.records_opening import records_on_demand
from rpcshare.server.workspaces_opening import opened_workspaces
from rpcshare.shares import Credentials, ShareService
from rpcshare.storage import MemoryStore
from rpcshare.workspaces.caller_workspaces import CallerWorkspaces

__all__ = ["ALICE", "BINARY", "World", "eventually"]

ALICE = Caller("alice", frozenset({Scope.CREATE}), source="key")

_SECONDS = 60.0


async def eventually(check: Callable[[], Any], seconds: float = _SECONDS) -> Any:
    """Return what ``check`` returns, a coroutine function, once that is true."""
    until = time.monotonic() + seconds
    while True:
        found = await check()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"it has not come true within {seconds:.0f} s")
        await asyncio.sleep(0.05)


class World:
    """One server's agents, without the server: its shares are in memory, its records in a file."""

    def __init__(
        self, folder: Path, model: ScriptedModel, store: MemoryStore | None = None, **settings: Any
    ) -> None:
        self.folder = folder
        self.model = model
        self.store = store or MemoryStore()
        table = {
            "kind": "openai",
            "base_url": model.url,
            "key_env": "FAKE_KEY",
            "models": ["scripted"],
            "prices": {"scripted": {"input": 3.0, "output": 15.0}},
        }
        self.settings = Settings(
            data_dir=folder,
            models=parse_model_tables({"fake": table}),
            **{"agents": "local", "opencode_bin": BINARY, **settings},
        )

    async def __aenter__(self) -> Self:
        self._stack = contextlib.AsyncExitStack()
        stack = await self._stack.__aenter__()
        audit = AuditLog()
        credentials = Credentials(uuid.UUID(int=7), "http://share.example")
        self.shares = ShareService(self.store, LocalBroadcaster(), credentials, audit=audit)
        stack.push_async_callback(self.shares.close)
        records = await stack.enter_async_context(records_on_demand(self.settings, None))
        self.audit = audit
        self.workspaces = await stack.enter_async_context(
            opened_workspaces(self.settings, None, audit, records)
        )
        gateway = await stack.enter_async_context(opened_gateway(self.settings, None, audit))
        self.services: AgentServices = await stack.enter_async_context(
            opened_agents(
                self.settings,
                records,
                self.shares,
                self.workspaces,
                gateway,
                public_url="http://share.example",
            )
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def of(self, caller: Caller = ALICE) -> CallerAgents:
        """Return the agents of a caller."""
        return CallerAgents(self.services, caller, self.workspaces_of(caller), self.audit)

    def workspaces_of(self, caller: Caller = ALICE) -> CallerWorkspaces:
        """Return the workspaces of a caller."""
        return CallerWorkspaces(self.workspaces, caller, self.audit)

    async def workspace(self, name: str = "site") -> str:
        """Make a workspace."""
        return (await self.workspaces_of().create({"name": name})).id

    async def start(self, prompt: str | None = None, **options: Any) -> Agent:
        """Start an agent, in a workspace of its own unless told otherwise."""
        workspace = options.pop("workspace", None) or await self.workspace(f"w{uuid.uuid4().hex[:8]}")
        given = {"workspace": workspace, **options}
        return await self.of().start(given if prompt is None else {**given, "prompt": prompt})

    async def until(self, agent: Agent, *statuses: AgentStatus, seconds: float = _SECONDS) -> Agent:
        """Return an agent once it has one of the statuses."""

        async def look() -> Agent | None:
            found = await self.of().get(agent.id)
            if found.status is AgentStatus.FAILED and AgentStatus.FAILED not in statuses:
                raise AssertionError(found.error)
            return found if found.status in statuses else None

        found: Agent = await eventually(look, seconds)
        return found

    async def settled(self, agent: Agent) -> Agent:
        """Return an agent once nothing is under way, and nothing waits."""

        async def look() -> Agent | None:
            found = await self.of().get(agent.id)
            return found if found.status is AgentStatus.IDLE and not await self.of().queue(agent.id) else None

        found: Agent = await eventually(look)
        return found

    async def items(self, agent: Agent) -> list[dict[str, Any]]:
        """Return what the share holds, as SyncData."""
        found: list[dict[str, Any]] = msgspec.json.decode(await self.shares.sync_data(ALICE, agent.share_id))
        return found

    async def of_opencode(self, agent: Agent) -> list[dict[str, Any]]:
        """Return the messages of opencode's own store, ``{info, parts}``."""
        opencode = self.runner(agent)._process.opencode
        found: list[dict[str, Any]] = await opencode.messages(agent.id)
        return found

    def runner(self, agent: Agent) -> Any:
        """Return the runner of an agent's workspace."""
        return self.services.node._runners[agent.workspace]  # type: ignore[attr-defined]


def text_of(items: list[dict[str, Any]]) -> str:
    """Return all text of a share."""
    return "\n".join(each["data"].get("text", "") for each in items if each["type"] == "part")
