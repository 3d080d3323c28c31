"""Programs on workspaces: what agents are started with.

Each gets a sandbox with the workspace's limits, its mounts, and an egress proxy of its own. What is refused
to it, and how it ends, is told to the audit log and counted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.process_directories import process_directory
from rpcshare.sandbox.driver import Mount, Sandbox, SandboxDriver, SandboxSpec, SandboxStatus
from rpcshare.sandbox.egress_proxy import EgressPolicy, EgressProxy, EgressRefusal, Resolve
from rpcshare.workspaces.workspace import Workspace, WorkspaceState, unknown_workspace
from rpcshare.workspaces.workspaces import Reach, Workspaces

__all__ = ["EgressSettings", "Program", "ProgramCounts", "SandboxedPrograms", "WorkspacePrograms"]

logger = logging.getLogger("rpcshare.workspaces")

T = TypeVar("T")

MOUNTS = PurePosixPath("/mnt")
"""Where other workspaces are seen, each by its name there."""


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
                this server. PAYLOAD_TOO_LARGE: it holds more than its limit on disk.
            SandboxError: it could not be started.
        """


@dataclass(frozen=True)
class EgressSettings:
    """Where sandboxes may connect to."""

    allowed: tuple[str, ...] = ()
    """Hosts that every workspace may reach."""
    private: tuple[str, ...] = ()
    """Hosts that may be on a private network."""
    by_owner: bool = True
    """Whether the owner of a workspace may name further hosts, of the public internet."""

    def policy(self, hosts: tuple[str, ...] = ()) -> EgressPolicy:
        """Return what one workspace may reach that names ``hosts``. Raises ValueError."""
        return EgressPolicy((*self.allowed, *(hosts if self.by_owner else ())), self.private)


@dataclass
class ProgramCounts:
    """What has happened in sandboxes, for metrics."""

    started: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """By reason."""
    refused_connections: Counter[str] = field(default_factory=Counter)
    """By reason."""
    refused_calls: Counter[str] = field(default_factory=Counter)
    """By name of the system call."""
    connections: int = 0
    sent: int = 0
    received: int = 0


class SandboxedPrograms:
    """Starts programs by means of a driver."""

    def __init__(
        self,
        workspaces: Callable[[], Awaitable[Workspaces]],
        driver: SandboxDriver,
        egress: EgressSettings,
        audit: AuditLog,
        *,
        resolve: Resolve | None = None,
    ) -> None:
        """Start programs on ``workspaces``, with the proxy that ``egress`` says; tell ``audit`` of them."""
        self._workspaces = workspaces
        self._driver = driver
        self._egress = egress
        self._audit = audit
        self._resolve = resolve
        self.counts = ProgramCounts()
        self._running: dict[str, set[Sandbox]] = {}
        self._proxies: dict[str, set[EgressProxy]] = {}
        self._ends: set[asyncio.Task[None]] = set()

    @property
    def driver(self) -> SandboxDriver:
        """What starts sandboxes."""
        return self._driver

    def is_running(self, workspace_id: str) -> bool:
        """Whether a program runs on a workspace, on this server."""
        return bool(self._running.get(workspace_id))

    async def start(self, workspace: Workspace, program: Program, caller: Caller) -> Sandbox:
        """Start one; see :class:`WorkspacePrograms`."""
        workspaces = await self._workspaces()
        folder = workspaces.folder_of(workspace)
        mounts = await self._mounts(workspaces, workspace)
        if workspace.state is not WorkspaceState.READY:
            raise ShareError(ErrorCode.WORKSPACE_NOT_FOUND, "there is no such workspace")
        if not await asyncio.to_thread(folder.files.is_dir):
            message = "the workspace's files are not on this server"
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, message)
        await self._require_room(workspaces, workspace)
        run = process_directory("run")
        proxy = self._proxy(workspace, Path(run.name), caller)
        try:
            await proxy.open()
            self._proxies.setdefault(workspace.id, set()).add(proxy)
            spec = SandboxSpec(
                name=f"{workspace.id}-{secrets.token_hex(3)}",
                command=program.command,
                workspace=folder.files,
                home=folder.home,
                run_dir=Path(run.name),
                environment=program.environment,
                mounts=(*mounts, *program.mounts),
                limits=workspace.resources.limits(),
                egress_socket=proxy.path,
                sockets=program.sockets,
                port=program.port,
                log_file=program.log_file,
                on_refused=lambda name: self._refused_call(workspace, caller, name),
            )
            sandbox = await self._driver.start(spec)
        except BaseException:
            _forget(self._proxies, workspace.id, proxy)
            await proxy.close()
            run.cleanup()
            raise
        self.counts.started += 1
        self._running.setdefault(workspace.id, set()).add(sandbox)
        ending = asyncio.ensure_future(self._await_end(workspace, caller, sandbox, proxy, run))
        self._ends.add(ending)
        ending.add_done_callback(self._ends.discard)
        return sandbox

    def apply(self, workspace: Workspace) -> None:
        """Have programs that run on a workspace reach the hosts that it names now."""
        for proxy in self._proxies.get(workspace.id, ()):
            proxy.policy = self._egress.policy(workspace.hosts)

    def traffic(self) -> tuple[int, int, int]:
        """Return connections, bytes sent and bytes received of all sandboxes, since the start."""
        open_ones = [proxy.traffic for proxies in self._proxies.values() for proxy in proxies]
        counts = self.counts
        return (
            counts.connections + sum(each.connections for each in open_ones),
            counts.sent + sum(each.sent for each in open_ones),
            counts.received + sum(each.received for each in open_ones),
        )

    async def close(self) -> None:
        """End all programs."""
        await self._driver.close()
        await asyncio.gather(*self._ends, return_exceptions=True)

    async def _mounts(self, workspaces: Workspaces, workspace: Workspace) -> list[Mount]:
        found = []
        for mount in workspace.mounts:
            # Its owner's rights count, and not those of whoever starts something here.
            reach = Reach((workspace.owner,))
            other = await workspaces.find(mount.workspace, reach)
            files = workspaces.folder_of(other).files
            if other.state is not WorkspaceState.READY or not await asyncio.to_thread(files.is_dir):
                raise unknown_workspace()
            found.append(Mount(files, MOUNTS / mount.name))
        return found

    async def _require_room(self, workspaces: Workspaces, workspace: Workspace) -> None:
        usage = await workspaces.measure(workspace)
        if usage.exceeds(workspace.resources.disk, 1_000_000):
            used, most = usage.size, workspace.resources.disk
            message = (
                f"the workspace holds {used:,} bytes of at most {most:,}: remove files, or raise its limit"
            )
            raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)

    def _proxy(self, workspace: Workspace, run: Path, caller: Caller) -> EgressProxy:
        def refused(reason: EgressRefusal, host: str) -> None:
            self.counts.refused_connections[reason.value] += 1
            details = {"workspace": workspace.id, "why": reason.value, "host": host}
            self._audit.refused(Action.SANDBOX_EGRESS, _at(caller, workspace), ErrorCode.FORBIDDEN, **details)

        policy = self._egress.policy(workspace.hosts)
        return EgressProxy(run / "egress", policy, on_refused=refused, resolve=self._resolve)

    def _refused_call(self, workspace: Workspace, caller: Caller, name: str) -> None:
        self.counts.refused_calls[name] += 1
        details = {"workspace": workspace.id, "call": name}
        self._audit.refused(Action.SANDBOX_CALL, _at(caller, workspace), ErrorCode.FORBIDDEN, **details)

    async def _await_end(
        self,
        workspace: Workspace,
        caller: Caller,
        sandbox: Sandbox,
        proxy: EgressProxy,
        run: tempfile.TemporaryDirectory[str],
    ) -> None:
        status = await sandbox.wait()
        await proxy.close()
        self._note_end(workspace, caller, sandbox, proxy, status)
        await asyncio.to_thread(run.cleanup)
        try:
            await (await self._workspaces()).measure(workspace)
        except Exception as exc:  # noqa: BLE001 -- the figure is of no consequence; the program has ended
            logger.warning("the disk of a workspace could not be measured: %s", type(exc).__name__)

    def _note_end(
        self,
        workspace: Workspace,
        caller: Caller,
        sandbox: Sandbox,
        proxy: EgressProxy,
        status: SandboxStatus,
    ) -> None:
        _forget(self._running, workspace.id, sandbox)
        _forget(self._proxies, workspace.id, proxy)
        counts, traffic = self.counts, proxy.traffic
        counts.connections += traffic.connections
        counts.sent += traffic.sent
        counts.received += traffic.received
        reason = "" if status.reason is None else status.reason.value
        counts.ended[reason] += 1
        details = {"workspace": workspace.id, "why": reason, "how": status.message}
        details |= {"sent": str(traffic.sent), "received": str(traffic.received)}
        self._audit.done(Action.SANDBOX_END, caller, **details)


def _forget(kept: dict[str, set[T]], workspace_id: str, one: T) -> None:
    them = kept.get(workspace_id, set())
    them.discard(one)
    if not them:
        kept.pop(workspace_id, None)


def _at(caller: Caller, workspace: Workspace) -> Caller:
    """Return who is told of what a sandbox was refused. It counts as a network of its own among refusals."""
    return Caller(
        subject=caller.subject, source=caller.source, user=caller.user, address=f"sandbox {workspace.id}"
    )
