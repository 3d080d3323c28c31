"""The vault over HTTP: ``/api/keys``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from rpcshare import jsontext
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode
from rpcshare.server import schemas
from rpcshare.server.json_body import read_json_body
from rpcshare.server.operation import Needs, Operation
from rpcshare.server.responses import json_response
from rpcshare.vault.caller_vault import CallerVault

__all__ = ["VaultApi"]

_MAX_BODY = 512 * 1024  # bytes: a value of 64 KiB, each character of it escaped


class VaultApi:
    """The handlers; rights are those of :class:`~rpcshare.vault.CallerVault`."""

    def __init__(self, vault_of: Callable[[Caller], CallerVault]) -> None:
        """Take what returns the vault in the hands of a caller."""
        self._vault_of = vault_of

    def operations(self) -> Mapping[str, Mapping[str, Operation]]:
        """Return what can be done, by path and method."""
        credential = Needs.CREDENTIAL
        return {
            "/api/keys": {
                "GET": Operation(
                    summary="What the vault has of one's own, and of the organization; never a value",
                    handler=self._list,
                    needs=credential,
                    answer=list[schemas.VaultEntry],
                ),
                "POST": Operation(
                    summary="Keep a key of a third party in the vault",
                    handler=self._store,
                    needs=credential,
                    body=schemas.NewVaultEntry,
                    answer=schemas.Stored,
                ),
            },
            "/api/keys/{entry_id}": {
                "GET": Operation(
                    summary="An entry of the vault, with its value",
                    handler=self._retrieve,
                    needs=credential,
                    answer=schemas.RetrievedVaultEntry,
                    codes=(ErrorCode.INVALID_ARGUMENT,),
                ),
                "DELETE": Operation(
                    summary="Remove an entry of the vault",
                    handler=self._revoke,
                    needs=credential,
                    answer=schemas.Success,
                    codes=(ErrorCode.INVALID_ARGUMENT,),
                ),
            },
            "/api/keys/{entry_id}/rotate": {
                "POST": Operation(
                    summary="Put another value in the place of one in the vault",
                    handler=self._rotate,
                    needs=credential,
                    body=schemas.RotateBody,
                    answer=schemas.VaultEntry,
                ),
            },
        }

    async def _list(self, _request: Request, caller: Caller) -> object:
        return _uncached([entry.described() for entry in await self._vault_of(caller).list()])

    async def _store(self, request: Request, caller: Caller) -> object:
        body = await read_json_body(request, _MAX_BODY, longest_member=_MAX_BODY)
        return {"id": (await self._vault_of(caller).store(body.all_but())).id}

    async def _retrieve(self, request: Request, caller: Caller) -> object:
        entry, value = await self._vault_of(caller).retrieve(request.path_params["entry_id"])
        return _uncached({**entry.described(), "value": value})

    async def _rotate(self, request: Request, caller: Caller) -> object:
        body = await read_json_body(request, _MAX_BODY, longest_member=_MAX_BODY)
        vault = self._vault_of(caller)
        return (await vault.rotate(request.path_params["entry_id"], body.get("value"))).described()

    async def _revoke(self, request: Request, caller: Caller) -> object:
        await self._vault_of(caller).revoke(request.path_params["entry_id"])
        return {"success": True}


def _uncached(value: object) -> Response:
    """Return an answer that nobody keeps, as that to a write: a browser would put a read on its disk."""
    return json_response(jsontext.encode(value))
