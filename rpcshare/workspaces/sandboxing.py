"""Sandboxes on workspaces: what agents are started with, and git as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rpcshare.auth.caller import Caller
from rpcshare.sandbox.driver import Mount, Sandbox
from rpcshare.workspaces.workspace import Workspace

__all__ = ["Program", "WorkspacePrograms"]


@dataclass(frozen=True)
class Program:
    """What is run on a workspace."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    """Beside the workspace's own: the agent's binary, read-only."""
    sockets: Mapping[int, Path] = field(default_factory=dict)
    """Ports inside, and the Unix sockets of the server that they lead to: the model gateway."""
    port: int | None = None
    """On which it serves, inside."""
    log_file: Path | None = None


class WorkspacePrograms(Protocol):
    """Starts programs on workspaces, within the workspace's limits, mounts and allow-list."""

    async def start(self, workspace: Workspace, program: Program, caller: Caller) -> Sandbox:
        """Start one. What it is refused is told to the audit log, under the name of ``caller``.

        Raises:
            ShareError: WORKSPACE_NOT_FOUND: a mounted one is gone. STORAGE_UNAVAILABLE: its files are not on
                this server. INVALID_ARGUMENT: it holds more than its limit on disk.
            SandboxError: it could not be started.
        """
