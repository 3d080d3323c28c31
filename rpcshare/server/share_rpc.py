"""``ShareRpc``, the main target of every connection (PROTOCOL.md, "ShareRpc")."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import JSON, UNDEFINED, Codec, Date, ReadableStream, RpcTarget, Stub, rpc_method
from rpcshare.server.keys_rpc import KeysRpc
from rpcshare.server.plain_json import iso_string, plain_json, plain_options
from rpcshare.server.rpc_results import preencoded_document
from rpcshare.server.subscriptions import CallbackSubscription, event_stream
from rpcshare.server.user_limits import UserLimits
from rpcshare.server.users_rpc import UsersRpc
from rpcshare.server.vault_rpc import VaultRpc
from rpcshare.shares.access import require_standing
from rpcshare.shares.document import Form
from rpcshare.shares.service import ShareService
from rpcshare.vault.caller_vault import CallerVault

if TYPE_CHECKING:
    from rpcshare.agents.caller_agents import CallerAgents
    from rpcshare.server.web.user_sign_in import SignedIn
    from rpcshare.workspaces.caller_workspaces import CallerWorkspaces

__all__ = ["Share", "ShareRpc"]


MAX_PROBED_BYTES = 500_000
"""Of ``probeValue``: each becomes a number of the result."""


class ListOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``listShares`` takes."""

    cursor: str | None = None
    limit: int | None = None
    query: str | None = None


class SearchOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``searchShares`` takes."""

    query: str
    cursor: str | None = None
    limit: int | None = None


class ViewTokenOptions(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """What ``createViewToken`` takes."""

    expires_in: str | float | None = None


class ShareRpc(RpcTarget):
    """What one caller may do with shares, by name on the wire."""

    def __init__(
        self,
        service: ShareService,
        authenticator: Authenticator,
        caller: Caller,
        *,
        keys: ApiKeys | None = None,
        signed_in: SignedIn | None = None,
        vault_of: Callable[[Caller], CallerVault] | None = None,
        workspaces_of: Callable[[Caller], CallerWorkspaces] | None = None,
        agents_of: Callable[[Caller], CallerAgents] | None = None,
        codec: Codec = JSON,
    ) -> None:
        """Act for ``caller``, whose connection has ``codec``."""
        self._codec = codec
        self._service = service
        self._authenticator = authenticator
        self._caller = caller
        self._keys = keys
        self._signed_in = signed_in
        self._vault_of = vault_of
        self._workspaces_of = workspaces_of
        self._agents_of = agents_of

    @property
    def caller(self) -> Caller:
        """For whom it acts."""
        return self._caller

    @rpc_method("createShare(sessionID, initialData?, options?)", text="initialData")
    async def create_share(
        self, session_id: str, data: object = None, options: object = None
    ) -> dict[str, Any]:
        """Share a session, or get the credentials of one's share of it again."""
        if data is not None:
            data = plain_json(data, "data")
        created = await self._service.create(
            self._caller, session_id, data, plain_options(options, "options")
        )
        return {"id": created.id, "url": created.url, "secret": created.secret}

    @rpc_method("syncShare(shareID, secret, data)", text="data")
    async def sync_share(self, share_id: str, secret: str | None, data: object) -> dict[str, Any]:
        """Add a batch to a share; returns when it is durable."""
        count = await self._service.sync(self._caller, share_id, secret, plain_json(data, "data"))
        return {"success": True, "syncCount": count}

    @rpc_method("deleteShare(shareID, secret?)")
    async def delete_share(self, share_id: str, secret: str | None = None) -> dict[str, Any]:
        """Take a share down."""
        await self._service.delete(self._caller, share_id, secret)
        return {"success": True}

    @rpc_method("updateShare(shareID, secret, options?)")
    async def update_share(self, share_id: str, secret: str | None, options: object = None) -> object:
        """Change who may read a share, and until when; return how that is now."""
        settings = await self._service.update(
            self._caller, share_id, secret, plain_options(options, "options")
        )
        return msgspec.to_builtins(settings)

    @rpc_method("createViewToken(shareID, secret, options?)")
    async def create_view_token(
        self, share_id: str, secret: str | None, options: ViewTokenOptions | None = None
    ) -> object:
        """Return a right to read a share, to be passed on."""
        expires_in = options.expires_in if options is not None else None
        token = await self._service.create_view_token(self._caller, share_id, secret, expires_in)
        return msgspec.to_builtins(token)

    @rpc_method("unlockShare(shareID, password)")
    async def unlock_share(self, share_id: str, password: str) -> object:
        """Return a right to read a share for who knows its password."""
        return msgspec.to_builtins(await self._service.unlock(self._caller, share_id, password))

    @rpc_method("getShare(shareID)")
    async def get_share(self, share_id: str) -> object:
        """Return the whole of a share: an AgentSession."""
        document = await self._service.document(self._caller, share_id, Form.AGENT_SESSION)
        return await preencoded_document(document, self._codec)

    @rpc_method("getShareMetadata(shareID)")
    async def get_share_metadata(self, share_id: str) -> object:
        """Return the SessionIndex of a share."""
        return msgspec.to_builtins(await self._service.metadata(self._caller, share_id))

    @rpc_method("listShares(options?)")
    async def list_shares(self, options: ListOptions | None = None) -> object:
        """Return a page of the caller's shares, newest first."""
        wanted = options or ListOptions()
        page = await self._service.list_own(
            self._caller, cursor=wanted.cursor, limit=wanted.limit, query=wanted.query
        )
        return msgspec.to_builtins(page)

    @rpc_method("searchShares(options)")
    async def search_shares(self, options: SearchOptions) -> object:
        """Return where words are, in the shares that the caller may list."""
        page = await self._service.search(
            self._caller, options.query, cursor=options.cursor, limit=options.limit
        )
        return msgspec.to_builtins(page)

    @rpc_method("subscribe(shareID, onEvent, fromSyncCount?)")
    async def subscribe(
        self, share_id: str, on_event: Stub, from_sync_count: int | None = None
    ) -> CallbackSubscription:
        """Call ``onEvent`` with the events of a share until the subscription is disposed of."""
        subscription = await self._service.subscribe(self._caller, share_id, from_sync_count)
        return CallbackSubscription(subscription, on_event, self._caller, self._codec)

    @rpc_method("watch(shareID, fromSyncCount?)")
    async def watch(self, share_id: str, from_sync_count: int | None = None) -> ReadableStream:
        """Return the events of a share as a stream; who reads it slowly gets what waits merged."""
        # What is wrong is said now, and not when somebody reads.
        subscribe = partial(self._service.subscribe, self._caller, share_id, from_sync_count)
        await (await subscribe()).aclose()
        return ReadableStream(event_stream(subscribe, self._caller, self._codec))

    @rpc_method("openShare(shareID, secret)")
    async def open_share(self, share_id: str, secret: str | None) -> Share:
        """Return a share as a capability: who holds it may write it, and read it."""
        await self._service.check_write(self._caller, share_id, secret)
        return Share(self, share_id, secret)

    async def as_reader(self, share_id: str, secret: str | None) -> ShareRpc:
        """Return what acts for the caller as one who may read the share, since it may write it."""
        view = await self._service.check_write(self._caller, share_id, secret)
        caller = msgspec.structs.replace(self._caller, views=self._caller.views | {view})
        return ShareRpc(self._service, self._authenticator, caller, codec=self._codec)

    @rpc_method("authenticate(token)")
    async def authenticate(self, token: str) -> ShareRpc:
        """Return what the caller that ``token`` stands for would have found on connecting."""
        require_standing(self._caller)
        caller = await self._authenticator.caller_of_token(token, address=self._caller.address)
        return ShareRpc(
            self._service,
            self._authenticator,
            caller,
            keys=self._keys,
            signed_in=self._signed_in,
            vault_of=self._vault_of,
            workspaces_of=self._workspaces_of,
            agents_of=self._agents_of,
            codec=self._codec,
        )

    @rpc_method("users()")
    def users(self) -> UsersRpc:
        """Return the users of this server, or of the caller's organization, as a capability for admins."""
        require_standing(self._caller)
        if self._signed_in is None:
            raise ShareError(
                ErrorCode.FORBIDDEN, "Forbidden: this server has no users: nobody signs in with a provider"
            )
        limits = UserLimits(self._signed_in.people, self._authenticator.rates, self._service)
        return UsersRpc(self._signed_in, self._caller, self._service, limits)

    @rpc_method("keys()")
    def keys(self) -> KeysRpc:
        """Return the API keys of this server as a capability, for admins."""
        require_standing(self._caller)
        if self._keys is None:
            raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: this server keeps no API keys")
        return KeysRpc(self._keys, self._caller, self._service.audit)

    @rpc_method("vault()")
    def vault(self) -> VaultRpc:
        """Return the keys of third parties that are the caller's, as a capability."""
        require_standing(self._caller)
        if self._vault_of is None:
            raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: this server has no vault")
        return VaultRpc(self._vault_of(self._caller))

    @rpc_method("workspaces()")
    def workspaces(self) -> RpcTarget:
        """Return the workspaces that are the caller's, as a capability."""
        require_standing(self._caller)
        if self._workspaces_of is None:
            raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: this server runs no agents")
        from rpcshare.server.workspaces_rpc import WorkspacesRpc  # noqa: PLC0415 -- few servers need it

        return WorkspacesRpc(self._workspaces_of(self._caller))

    @rpc_method("agents()")
    def agents(self) -> RpcTarget:
        """Return the agents that are the caller's, as a capability."""
        require_standing(self._caller)
        if self._agents_of is None:
            raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: this server runs no agents")
        from rpcshare.server.agents_rpc import AgentsRpc  # noqa: PLC0415 -- few servers need it

        return AgentsRpc(self._agents_of(self._caller), self._caller, self._codec)

    @rpc_method("whoami()")
    async def whoami(self) -> dict[str, Any]:
        """Return who the caller is, and what a user has and may have."""
        require_standing(self._caller)
        user = self._caller.user
        told: dict[str, object] = {} if user is None else {"user": user.described()}
        if user is not None and self._signed_in is not None:
            limits = UserLimits(self._signed_in.people, self._authenticator.rates, self._service)
            with contextlib.suppress(ShareError):  # where the database fails, this is still who it is
                told["usage"] = await limits.described(user)
        return {"subject": self._caller.subject, "scopes": sorted(self._caller.scopes), **told}

    @rpc_method("probeValue(value)")
    def probe_value(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return what arrived of a date, some bytes and a nested value, in plain JSON types."""
        require_standing(self._caller)
        when, data = value.get("when"), value.get("bytes")
        if not isinstance(when, datetime | Date):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "probeValue: value.when is not a Date")
        if not isinstance(data, bytes):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "probeValue: value.bytes is not a Uint8Array")
        if len(data) > MAX_PROBED_BYTES:
            # Refused before as many numbers are made: the session could not send them.
            message = f"probeValue: value.bytes has {len(data):,} bytes (at most {MAX_PROBED_BYTES:,})"
            raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)
        return {
            "when": iso_string(when),
            "bytes": list(data),
            "size": len(data),
            "nested": value.get("nested", UNDEFINED),
        }

    @rpc_method("probeCallback(callback)")
    async def probe_callback(self, callback: Stub) -> object:
        """Call the caller back, and return what that returned."""
        require_standing(self._caller)
        return await callback("server-called")


class Share(RpcTarget):
    """One share, with the right to write it, hence to read it. The secret stays here."""

    def __init__(self, api: ShareRpc, share_id: str, secret: str | None) -> None:
        self._api = api
        self._share_id = share_id
        self._secret = secret

    @property
    def caller(self) -> Caller:
        """For whom it acts."""
        return self._api.caller

    @rpc_method("sync(data)", text="data")
    async def sync(self, data: object) -> dict[str, Any]:
        """Add a batch; returns when it is durable."""
        return await self._api.sync_share(self._share_id, self._secret, data)

    @rpc_method("snapshot()")
    async def snapshot(self) -> object:
        """Return the whole of the share: an AgentSession."""
        reader = await self._api.as_reader(self._share_id, self._secret)
        return await reader.get_share(self._share_id)

    @rpc_method("subscribe(onEvent, fromSyncCount?)")
    async def subscribe(self, on_event: Stub, from_sync_count: int | None = None) -> CallbackSubscription:
        """Call ``onEvent`` with the events of the share until the subscription is disposed of."""
        reader = await self._api.as_reader(self._share_id, self._secret)
        return await reader.subscribe(self._share_id, on_event, from_sync_count)

    @rpc_method("delete()")
    async def delete(self) -> dict[str, Any]:
        """Take the share down."""
        return await self._api.delete_share(self._share_id, self._secret)
