"""Workspaces and their files over HTTP: ``/api/workspaces`` and ``/api/files``."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

import msgspec
from starlette.requests import Request

from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server import schemas
from rpcshare.server.json_body import read_json_body
from rpcshare.server.operation import Needs, Operation, Parameter
from rpcshare.server.query_parameters import whole_number
from rpcshare.workspaces.caller_workspaces import CallerWorkspaces
from rpcshare.workspaces.files import Matches

__all__ = ["WorkspacesApi"]

_MAX_BODY = 64 * 1024
_CODES = (ErrorCode.WORKSPACE_NOT_FOUND,)
_WORKSPACE = Parameter(
    name="workspace", place="query", schema={"type": "string"}, description="The id of one.", is_required=True
)
_SNAPSHOT = Parameter(
    name="snapshot",
    place="query",
    schema={"type": "string", "enum": ["0", "1"]},
    description="1: its files are kept as an archive in the server's data directory.",
)
_QUERY = Parameter(
    name="query", place="query", schema={"type": "string"}, description="What to look for.", is_required=True
)
_FILE_TYPES = Parameter(
    name="fileTypes",
    place="query",
    schema={"type": "string"},
    description="Endings of names, with commas between: `py,md`.",
)
_LIMIT = Parameter(
    name="limit",
    place="query",
    schema={"type": "integer", "minimum": 1, "maximum": 2000},
    description="How many lines at most; 200 without it.",
)


class WorkspacesApi:
    """The handlers; rights are those of :class:`~rpcshare.workspaces.caller_workspaces.CallerWorkspaces`."""

    def __init__(self, workspaces_of: Callable[[Caller], CallerWorkspaces]) -> None:
        """Take what returns the workspaces in the hands of a caller."""
        self._workspaces_of = workspaces_of

    def operations(self) -> Mapping[str, Mapping[str, Operation]]:
        """Return what can be done, by path and method."""
        credential = Needs.CREDENTIAL
        return {
            "/api/workspaces": {
                "GET": Operation(
                    summary="The workspaces that the caller may use",
                    handler=self._list,
                    needs=credential,
                    answer=list[schemas.WorkspaceInfo],
                ),
                "POST": Operation(
                    summary="Make a workspace, and clone its repository",
                    handler=self._create,
                    needs=credential,
                    body=schemas.NewWorkspaceBody,
                    answer=schemas.WorkspaceInfo,
                    codes=(*_CODES, ErrorCode.INTEGRATION_AUTH_FAILED, ErrorCode.SYNC_FAILED),
                ),
            },
            "/api/workspaces/{workspace_id}": {
                "GET": Operation(
                    summary="A workspace, measured now",
                    handler=self._info,
                    needs=credential,
                    answer=schemas.WorkspaceInfo,
                    codes=_CODES,
                ),
                "DELETE": Operation(
                    summary="Remove a workspace with its files",
                    handler=self._remove,
                    needs=credential,
                    parameters=(_SNAPSHOT,),
                    answer=schemas.RemovedWorkspace,
                    codes=_CODES,
                ),
            },
            "/api/files/search": {
                "GET": Operation(
                    summary="Lines in a workspace's files with a text in them",
                    handler=self._search,
                    needs=credential,
                    parameters=(_QUERY, _WORKSPACE, _FILE_TYPES, _LIMIT),
                    answer=Matches,
                    codes=_CODES,
                ),
            },
            "/api/files/{path:path}": {
                "GET": Operation(
                    summary="A file of a workspace",
                    handler=self._read,
                    needs=credential,
                    parameters=(_WORKSPACE,),
                    answer=schemas.FileContent,
                    codes=_CODES,
                ),
            },
        }

    async def _list(self, _request: Request, caller: Caller) -> object:
        return [each.described() for each in await self._workspaces_of(caller).list()]

    async def _create(self, request: Request, caller: Caller) -> object:
        body = await read_json_body(request, _MAX_BODY)
        return (await self._workspaces_of(caller).create(body.all_but())).described()

    async def _info(self, request: Request, caller: Caller) -> object:
        return (await self._workspaces_of(caller).info(request.path_params["workspace_id"])).described()

    async def _remove(self, request: Request, caller: Caller) -> object:
        keeps = request.query_params.get("snapshot", "0")
        if keeps not in ("0", "1"):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "snapshot: must be 0 or 1")
        workspaces, workspace_id = self._workspaces_of(caller), request.path_params["workspace_id"]
        made = await workspaces.remove(workspace_id, keep_snapshot=keeps == "1")
        return {"success": True, "snapshot": made}

    async def _search(self, request: Request, caller: Caller) -> object:
        query = request.query_params
        endings = [each.strip() for each in query.get("fileTypes", "").split(",") if each.strip()]
        if any(not each.lstrip(".").isalnum() for each in endings):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "fileTypes: endings of names such as py,md")
        globs = tuple(f"*.{each.lstrip('.')}" for each in endings)
        limit = whole_number(query["limit"], "limit") if "limit" in query else 200
        files = self._workspaces_of(caller).files(_workspace_of(request))
        return msgspec.to_builtins(await files.search(_given(request, "query"), globs, limit))

    async def _read(self, request: Request, caller: Caller) -> object:
        files = self._workspaces_of(caller).files(_workspace_of(request))
        read = await files.read(request.path_params["path"])
        is_text = isinstance(read.content, str)
        return {
            "content": read.content
            if isinstance(read.content, str)
            else base64.b64encode(read.content).decode(),
            "encoding": "utf-8" if is_text else "base64",
            "mimeType": read.mime_type,
            "size": read.size,
            "lastModified": read.last_modified,
        }


def _workspace_of(request: Request) -> str:
    return _given(request, "workspace")


def _given(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{name}: is missing")
    return value
