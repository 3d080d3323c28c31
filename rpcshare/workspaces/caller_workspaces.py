"""Workspaces in the hands of one caller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.egress_proxy import EgressRefusal
from rpcshare.workspaces.caller_rights import WORKSPACES, CallerRights
from rpcshare.workspaces.file_search import Searching
from rpcshare.workspaces.files import FileContent, Found, Listing, Matches, WorkspaceFiles
from rpcshare.workspaces.git_clone import GitClone
from rpcshare.workspaces.git_source import GitKey, GitLocation, find_key, parse_git_url
from rpcshare.workspaces.resources import Bounds
from rpcshare.workspaces.sandboxing import SandboxedPrograms
from rpcshare.workspaces.snapshots import snapshot
from rpcshare.workspaces.workspace import (
    MountedWorkspace,
    Workspace,
    WorkspaceState,
    is_workspace_id,
    parse_changes,
    parse_new_workspace,
    unknown_workspace,
)
from rpcshare.workspaces.workspaces import Reach, Workspaces

if TYPE_CHECKING:
    from rpcshare.vault.vault import Vault  # which imports SQLAlchemy

__all__ = ["CallerFiles", "CallerWorkspaces", "WorkspaceServices"]

logger = logging.getLogger("rpcshare.workspaces")

_MAX_CREATES_AT_ONCE = 4


class WorkspaceServices:
    """What all callers' workspaces have in common on one server."""

    def __init__(
        self,
        opened: Callable[[], Awaitable[Workspaces]],
        open_vault: Callable[[], Awaitable[Vault]] | None,
        programs: SandboxedPrograms,
        git: GitClone,
        *,
        bounds: Bounds,
        snapshots: Path,
        searching: Searching | None,
        file_root: Path | None = None,
    ) -> None:
        """Take them.

        Args:
            opened: returns the workspaces, whose database is opened when somebody first needs it.
            open_vault: returns the vault; None: there is none, and nothing that needs a key is cloned.
            programs: what runs on workspaces.
            git: clones repositories.
            bounds: the most that a workspace may use.
            snapshots: the directory of archives that are made before a workspace is removed.
            searching: searches in files; None: nothing can.
            file_root: the directory of repositories of this machine; None: none is cloned.
        """
        self.opened = opened
        self.open_vault = open_vault
        self.programs = programs
        self.git = git
        self.bounds = bounds
        self.snapshots = snapshots
        self.searching = searching
        self.file_root = file_root
        self.clones = asyncio.Semaphore(_MAX_CREATES_AT_ONCE)


class CallerWorkspaces:
    """What one caller may do with workspaces, by its rights (:mod:`~rpcshare.workspaces.caller_rights`).

    Of a workspace of somebody else's a caller is told nothing: its id is as good as none.

    Every method raises ShareError: UNAUTHORIZED, FORBIDDEN, INVALID_ARGUMENT, STORAGE_UNAVAILABLE, and where
    it takes an id WORKSPACE_NOT_FOUND.
    """

    def __init__(self, services: WorkspaceServices, caller: Caller, audit: AuditLog) -> None:
        """Act for ``caller`` and tell ``audit`` of it."""
        self._services = services
        self._caller = caller
        self._audit = audit
        self._rights = CallerRights(WORKSPACES, caller, audit)

    async def create(self, given: object) -> Workspace:
        """Make a workspace, and clone its repository if it has one.

        Raises:
            ShareError: INTEGRATION_AUTH_FAILED, SYNC_FAILED, PAYLOAD_TOO_LARGE as well: nothing is left then.
        """
        with self._rights.checked(Action.WORKSPACE_CREATE):
            owner = self._rights.owner()
            services = self._services
            new = parse_new_workspace(given, services.bounds)
            source = new.source
            location = None if source is None else parse_git_url(source.git, services.file_root)
            workspaces = await services.opened()
            await self._check_mounts(workspaces, new.mounts, owner)
            workspace = await workspaces.add(owner, new)
            try:
                if location is not None:
                    async with services.clones:
                        await self._clone(workspaces, workspace, location)
                ready = await workspaces.set_state(workspace, WorkspaceState.READY)
            except BaseException:
                # Whoever goes away while this is under way leaves nothing behind.
                await asyncio.shield(self._discard(workspaces, workspace))
                raise
            usage = await workspaces.measure(ready)
        self._done(Action.WORKSPACE_CREATE, ready)
        return msgspec.structs.replace(ready, disk_used=usage.size, measured_at=ready.updated_at)

    async def list(self) -> list[Workspace]:
        """Return the workspaces that the caller may use, the oldest first."""
        with self._rights.checked(Action.WORKSPACES_LIST):
            reach = self._rights.reach()
            return await (await self._services.opened()).list(reach)

    async def get(self, workspace_id: str) -> Workspace:
        """Return a workspace."""
        with self._rights.checked(Action.WORKSPACE_READ):
            return await self._find(workspace_id)

    async def info(self, workspace_id: str) -> Workspace:
        """Return a workspace, measured now."""
        with self._rights.checked(Action.WORKSPACE_READ):
            workspace = await self._find(workspace_id)
            workspaces = await self._services.opened()
            await workspaces.measure(workspace)
            return await self._find(workspace_id)

    async def update(self, workspace_id: str, given: object) -> Workspace:
        """Change name, mounts, resources or hosts. Hosts count at once, the rest from the next start."""
        with self._rights.checked(Action.WORKSPACE_UPDATE):
            workspace = await self._find(workspace_id)
            workspaces = await self._services.opened()
            changes = parse_changes(given, self._services.bounds, workspace.resources)
            if any(each.workspace == workspace.id for each in changes.mounts or ()):
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "mounts: a workspace does not mount itself")
            await self._check_mounts(workspaces, changes.mounts or (), workspace.owner)
            changed = await workspaces.change(workspace, changes)
            self._services.programs.apply(changed)
        self._done(Action.WORKSPACE_UPDATE, changed)
        return changed

    async def remove(self, workspace_id: str, *, keep_snapshot: bool = False) -> str | None:
        """Remove a workspace with its files, and return the name of its snapshot if one was to be made.

        Raises:
            ShareError: INVALID_ARGUMENT: a program runs on it, or another workspace mounts it.
        """
        with self._rights.checked(Action.WORKSPACE_REMOVE):
            workspace = await self._find(workspace_id, of_any_state=True)
            workspaces = await self._services.opened()
            if self._services.programs.is_running(workspace.id):
                raise ShareError(
                    ErrorCode.INVALID_ARGUMENT, "id: an agent runs on this workspace: stop it first"
                )
            users = await workspaces.users_of(workspace.id)
            if users:
                message = f"id: it is mounted by other workspaces ({', '.join(users[:5])})"
                raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
            removing = await workspaces.set_state(workspace, WorkspaceState.REMOVING)
            made = None
            if keep_snapshot:
                try:
                    made = await self._snapshot(workspaces, removing)
                except BaseException:
                    await asyncio.shield(workspaces.set_state(removing, workspace.state))
                    raise
            await workspaces.discard(removing)
        self._done(Action.WORKSPACE_REMOVE, workspace)
        return made

    def files(self, workspace_id: str) -> CallerFiles:
        """Return what looks into a workspace; rights are looked at with each call."""
        return CallerFiles(self, workspace_id)

    async def opened_files(self, workspace_id: str) -> WorkspaceFiles:
        """Return the files of a workspace that the caller may use."""
        with self._rights.checked(Action.WORKSPACE_READ):
            workspace = await self._find(workspace_id)
            folder = (await self._services.opened()).folder_of(workspace)
            return WorkspaceFiles(folder.files, self._services.searching)

    async def _clone(self, workspaces: Workspaces, workspace: Workspace, location: GitLocation) -> None:
        source = workspace.source
        key = await self._key(workspace, location)

        def refused(reason: EgressRefusal, host: str) -> None:
            self._services.programs.counts.refused_connections[reason.value] += 1
            details = {"workspace": workspace.id, "why": reason.value, "host": host}
            self._audit.refused(Action.SANDBOX_EGRESS, self._caller, ErrorCode.FORBIDDEN, **details)

        await self._services.git.clone(
            location,
            workspaces.folder_of(workspace).files,
            workspace.resources.limits(),
            ref=None if source is None else source.ref,
            key=key,
            on_refused=refused,
        )

    async def _key(self, workspace: Workspace, location: GitLocation) -> GitKey | None:
        source = workspace.source
        wanted = None if source is None else source.key
        if location.scheme == "file":
            return None
        if self._services.open_vault is None:
            if wanted is not None:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "source.key: this server has no vault")
            return None
        from rpcshare.vault.envelope import VaultIntegrityError  # noqa: PLC0415 -- servers without one

        vault = await self._services.open_vault()
        try:
            key = await find_key(vault, self._caller, location, workspace.id, workspace.name, wanted)
        except VaultIntegrityError as exc:
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
        if key is not None:
            self._audit.done(Action.VAULT_USE, self._caller, entry=key.entry_id, workspace=workspace.id)
        return key

    async def _snapshot(self, workspaces: Workspaces, workspace: Workspace) -> str:
        files = workspaces.folder_of(workspace).files
        try:
            path = await asyncio.to_thread(snapshot, files, self._services.snapshots, workspace.id)
        except OSError as exc:
            logger.warning("a snapshot of a workspace could not be made: %s", exc)
            message = "the snapshot could not be made; the workspace is as it was"
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, message) from exc
        return path.name

    async def _discard(self, workspaces: Workspaces, workspace: Workspace) -> None:
        try:
            await workspaces.discard(workspace)
        except (ShareError, DatabaseError) as exc:
            logger.warning("a workspace that could not be made is left over: %s", exc)

    async def _find(self, workspace_id: str, *, of_any_state: bool = False) -> Workspace:
        reach = self._rights.reach()
        if not is_workspace_id(workspace_id):
            raise unknown_workspace()
        workspace = await (await self._services.opened()).find(workspace_id, reach)
        if workspace.state is not WorkspaceState.READY and not of_any_state:
            raise unknown_workspace()
        return workspace

    async def _check_mounts(
        self, workspaces: Workspaces, mounts: tuple[MountedWorkspace, ...], owner: str
    ) -> None:
        """Require that what is mounted is its owner's, too: another could take it back, or fill it."""
        for mount in mounts:
            other = await workspaces.find(mount.workspace, Reach((owner,)))
            if other.state is not WorkspaceState.READY:
                raise unknown_workspace()

    def _done(self, action: Action, workspace: Workspace) -> None:
        self._audit.done(action, self._caller, workspace=workspace.id)


class CallerFiles:
    """The files of one workspace in the hands of one caller. Nothing of it is done in the event loop."""

    def __init__(self, workspaces: CallerWorkspaces, workspace_id: str) -> None:
        """Made by :meth:`CallerWorkspaces.files`."""
        self._workspaces = workspaces
        self._id = workspace_id

    async def list(self, path: str = "") -> Listing:
        """Return what is in a directory."""
        files = await self._opened()
        return await asyncio.to_thread(files.list, path)

    async def find(self, name: str) -> Found:
        """Return the paths of what has a name."""
        files = await self._opened()
        return await asyncio.to_thread(files.find, name)

    async def search(
        self, query: str, globs: tuple[str, ...] = (), limit: int = 200, *, regexp: bool = False
    ) -> Matches:
        """Return lines with ``query`` in them."""
        files = await self._opened()
        return await asyncio.to_thread(files.search, query, globs, limit, regexp=regexp)

    async def read(self, path: str) -> FileContent:
        """Return a file."""
        files = await self._opened()
        return await asyncio.to_thread(files.read, path)

    async def _opened(self) -> WorkspaceFiles:
        return await self._workspaces.opened_files(self._id)
