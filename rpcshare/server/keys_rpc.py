"""``ApiKeys``, the capability to manage API keys (PROTOCOL.md, "keys")."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from rpcshare.auth.api_keys import DEFAULT_SCOPES, ApiKeys, UnknownApiKeyError
from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller, DefaultVisibility, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import RpcTarget, rpc_method
from rpcshare.shares.access import may_manage_key, may_manage_keys
from rpcshare.shares.failures import storage_unavailable
from rpcshare.storage import StoreError

__all__ = ["KeysRpc", "check_key"]


class KeyOptions(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """What ``create`` takes."""

    scopes: list[str] | None = None
    expires_in: float | str | None = None
    default_visibility: DefaultVisibility | None = None
    rate_limit: int | None = None


class KeysRpc(RpcTarget):
    """The keys that a caller manages: an admin all of the server or the organization, a user the own ones."""

    def __init__(self, keys: ApiKeys, caller: Caller, audit: AuditLog) -> None:
        """Manage ``keys`` on behalf of ``caller``, and tell ``audit`` of it.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN.
        """
        with audit.refusals(Action.KEYS_LIST, caller):
            may_manage_keys(caller)
        self._keys = keys
        self._caller = caller
        self._audit = audit

    @property
    def caller(self) -> Caller:
        """For whom it acts."""
        return self._caller

    @rpc_method("create(name, options?)")
    async def create(self, name: str, options: KeyOptions | None = None) -> dict[str, Any]:
        """Make a key; its text is in this answer, and nowhere else."""
        wanted = options or KeyOptions()
        scopes = DEFAULT_SCOPES if wanted.scopes is None else wanted.scopes
        with self._permitted(Action.KEY_CREATE):
            made = await self._keys.create(
                name,
                scopes,
                wanted.expires_in,
                wanted.default_visibility,
                self._caller.user,
                wanted.rate_limit,
            )
        self._audit.done(Action.KEY_CREATE, self._caller, key=made.kept.id)
        return made.described()

    @rpc_method("list()")
    async def list(self) -> list[dict[str, Any]]:
        """Return what is known of every key, the oldest first."""
        with self._permitted(Action.KEYS_LIST):
            found = await self._keys.list()
        return [key.described() for key in found if may_manage_key(self._caller, key.user, key.organization)]

    @rpc_method("rotate(id)")
    async def rotate(self, key_id: str) -> dict[str, Any]:
        """Put another key in the place of one, which is revoked."""
        with self._permitted(Action.KEY_ROTATE):
            await check_key(self._keys, self._caller, key_id, hands_it_out=True)
            made = await self._keys.rotate(key_id)
        self._audit.done(Action.KEY_ROTATE, self._caller, key=key_id, newKey=made.kept.id)
        return made.described()

    @rpc_method("revoke(id)")
    async def revoke(self, key_id: str) -> dict[str, Any]:
        """End a key."""
        with self._permitted(Action.KEY_REVOKE):
            await check_key(self._keys, self._caller, key_id)
            revoked = await self._keys.revoke(key_id)
        self._audit.done(Action.KEY_REVOKE, self._caller, key=key_id)
        return revoked.described()

    @contextlib.contextmanager
    def _permitted(self, action: Action) -> Iterator[None]:
        with self._audit.refusals(action, self._caller):
            may_manage_keys(self._caller)  # anew: a capability may outlive the credential that got it
        try:
            yield
        except StoreError as exc:
            raise storage_unavailable(exc) from exc


async def check_key(keys: ApiKeys, caller: Caller, key_id: str, *, hands_it_out: bool = False) -> None:
    """Return if ``caller``, who may manage keys, may manage this one.

    Args:
        keys: all.
        caller: who.
        key_id: of which.
        hands_it_out: whether the caller is to get a key in its place. Whoever has a user's key acts as the
            user, so nobody else gets one: admins revoke it.

    Raises:
        UnknownApiKeyError: there is none; or it is another's, which the caller is not told.
        ShareError: FORBIDDEN: it is another user's, and would be handed out; or an admin's of the server.
        StoreError: the store failed.
    """
    key = await keys.find(key_id)
    if not may_manage_key(caller, key.user, key.organization):
        raise UnknownApiKeyError
    is_own = caller.user is not None and caller.user.id == key.user
    if Scope.ADMIN in key.scopes and not is_own and not caller.has(Scope.ADMIN):
        raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: only an admin of the server may end an admin's key")
    if hands_it_out and key.user is not None and not is_own:
        message = "Forbidden: a user's key is rotated by the user alone; you may revoke it"
        raise ShareError(ErrorCode.FORBIDDEN, message)
