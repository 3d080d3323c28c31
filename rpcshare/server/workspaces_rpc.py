"""``Workspaces``, ``Workspace`` and ``Files``: what agents work on (PROTOCOL.md, "workspaces")."""

from __future__ import annotations

from typing import Any

import msgspec

from rpcshare.rpc import RpcTarget, rpc_method
from rpcshare.server.plain_json import plain_options
from rpcshare.workspaces.caller_workspaces import CallerFiles, CallerWorkspaces

__all__ = ["FilesRpc", "RemoveOptions", "SearchFilesOptions", "WorkspaceRpc", "WorkspacesRpc"]


class RemoveOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``remove`` takes."""

    snapshot: bool = False


class SearchFilesOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``search`` takes."""

    glob: str | list[str] | None = None
    limit: int = 200
    regexp: bool = False


class WorkspacesRpc(RpcTarget):
    """The workspaces in the hands of one caller, for as long as that one's credential holds."""

    def __init__(self, workspaces: CallerWorkspaces) -> None:
        self._workspaces = workspaces

    @rpc_method("create(workspace)")
    async def create(self, workspace: object) -> WorkspaceRpc:
        """Make a workspace, and return it once its repository is cloned."""
        made = await self._workspaces.create(plain_options(workspace, "workspace"))
        return WorkspaceRpc(self._workspaces, made.id)

    @rpc_method("list()")
    async def list(self) -> list[dict[str, Any]]:
        """Return what is known of each workspace, the oldest first."""
        return [each.described() for each in await self._workspaces.list()]

    @rpc_method("get(id)")
    async def get(self, workspace_id: str) -> WorkspaceRpc:
        """Return a workspace as a capability."""
        await self._workspaces.get(workspace_id)
        return WorkspaceRpc(self._workspaces, workspace_id)

    @rpc_method("remove(id, options?)")
    async def remove(self, workspace_id: str, options: RemoveOptions | None = None) -> dict[str, Any]:
        """Remove a workspace with its files."""
        keeps = options is not None and options.snapshot
        made = await self._workspaces.remove(workspace_id, keep_snapshot=keeps)
        return {"success": True, "snapshot": made}


class WorkspaceRpc(RpcTarget):
    """One workspace."""

    def __init__(self, workspaces: CallerWorkspaces, workspace_id: str) -> None:
        self._workspaces = workspaces
        self._id = workspace_id

    @property
    def workspace_id(self) -> str:
        """Its id, for what is done with it here."""
        return self._id

    @rpc_method("info()")
    async def info(self) -> dict[str, Any]:
        """Return what is known of it; what it holds on the disk is measured now."""
        return (await self._workspaces.info(self._id)).described()

    @rpc_method("files()")
    async def files(self) -> FilesRpc:
        """Return its files."""
        await self._workspaces.get(self._id)
        return FilesRpc(self._workspaces.files(self._id))

    @rpc_method("update(changes)")
    async def update(self, changes: object) -> dict[str, Any]:
        """Change its name, mounts, resources or hosts; return what is known of it then."""
        changed = await self._workspaces.update(self._id, plain_options(changes, "changes"))
        return changed.described()


class FilesRpc(RpcTarget):
    """The files of one workspace."""

    def __init__(self, files: CallerFiles) -> None:
        self._files = files

    @rpc_method("list(path?)")
    async def list(self, path: str = "") -> object:
        """Return what is in a directory."""
        return msgspec.to_builtins(await self._files.list(path))

    @rpc_method("find(name)")
    async def find(self, name: str) -> object:
        """Return the paths of what has a name."""
        return msgspec.to_builtins(await self._files.find(name))

    @rpc_method("search(query, options?)")
    async def search(self, query: str, options: SearchFilesOptions | None = None) -> object:
        """Return lines with ``query`` in them."""
        wanted = options or SearchFilesOptions()
        glob = wanted.glob
        globs = () if glob is None else (glob,) if isinstance(glob, str) else tuple(glob)
        found = await self._files.search(query, globs, wanted.limit, regexp=wanted.regexp)
        return msgspec.to_builtins(found)

    @rpc_method("read(path)")
    async def read(self, path: str) -> object:
        """Return a file: its content is a string if it is UTF-8, and bytes otherwise."""
        return msgspec.to_builtins(await self._files.read(path), builtin_types=(bytes,))
