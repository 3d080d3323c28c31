"""What the runners of one node share: the settings, and whatever a process of opencode's needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rpcshare.agents.agent import JSONObject
from rpcshare.agents.agents import Agents
from rpcshare.agents.counts import AgentCounts
from rpcshare.agents.opencode.binary import OpencodeBinary
from rpcshare.agents.process_slots import ProcessSlots
from rpcshare.gateway.metering import ModelSessions
from rpcshare.shares.service import ShareService
from rpcshare.workspaces.sandboxing import WorkspacePrograms
from rpcshare.workspaces.workspace import Workspace
from rpcshare.workspaces.workspaces import Workspaces

__all__ = ["Models", "RunnerSettings", "Running"]


@dataclass(frozen=True)
class RunnerSettings:
    """How processes are run."""

    start_timeout: float = 90.0
    """Seconds until opencode has to answer."""
    idle_timeout: float = 300.0
    """Seconds without anything to do after which it is stopped."""
    grace: float = 2.0
    """The same, while others wait for a slot."""
    looks_again: float = 1.0
    """Seconds after which rows are read again, where other nodes may have changed them."""


@dataclass(frozen=True)
class Running:
    """What the runners of one node share."""

    agents: Agents
    workspaces: Callable[[], Awaitable[Workspaces]]
    programs: WorkspacePrograms
    shares: ShareService
    binary: OpencodeBinary
    open_models: Callable[[Workspace, str, ModelSessions], Awaitable[Models]]
    """Opens the models for a process that answers by this one unless it is asked for another."""
    settings: RunnerSettings
    slots: ProcessSlots
    counts: AgentCounts


class Models(Protocol):
    """The way to models of one process."""

    config: JSONObject
    """opencode's."""
    sockets: dict[int, Path]
    """Ports inside, and the sockets of the server that they lead to."""

    async def close(self) -> None:
        """Let nobody ask a model by it any more."""
