"""``Vault``, the capability to keep keys of third parties (PROTOCOL.md, "vault")."""

from __future__ import annotations

from typing import Any

from rpcshare.auth.caller import Caller
from rpcshare.rpc import RpcTarget, rpc_method
from rpcshare.server.plain_json import plain_options
from rpcshare.vault.caller_vault import CallerVault

__all__ = ["VaultRpc"]


class VaultRpc(RpcTarget):
    """The vault in the hands of one caller, for as long as that one's credential holds."""

    def __init__(self, vault: CallerVault) -> None:
        self._vault = vault

    @property
    def caller(self) -> Caller:
        """For whom it acts."""
        return self._vault.caller

    @rpc_method("store(secret)")
    async def store(self, secret: object) -> dict[str, Any]:
        """Keep a key of a third party."""
        return {"id": (await self._vault.store(plain_options(secret, "secret"))).id}

    @rpc_method("list()")
    async def list(self) -> list[dict[str, Any]]:
        """Return what is known of each entry, the oldest first; never a value."""
        return [entry.described() for entry in await self._vault.list()]

    @rpc_method("retrieve(id)")
    async def retrieve(self, entry_id: str) -> dict[str, Any]:
        """Return an entry with its value."""
        entry, value = await self._vault.retrieve(entry_id)
        return {**entry.described(), "value": value}

    @rpc_method("rotate(id, value)")
    async def rotate(self, entry_id: str, value: object) -> dict[str, Any]:
        """Put another value in the place of one."""
        return (await self._vault.rotate(entry_id, value)).described()

    @rpc_method("revoke(id)")
    async def revoke(self, entry_id: str) -> dict[str, Any]:
        """Remove an entry."""
        await self._vault.revoke(entry_id)
        return {"success": True}
