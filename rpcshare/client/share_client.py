"""The typed client."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypedDict, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from rpcshare.client.agents import Agents
from rpcshare.client.connecting import connect
from rpcshare.client.events import EventStream
from rpcshare.client.reconnecting import Reconnecting, Token
from rpcshare.client.sync_pieces import sync_pieces
from rpcshare.client.types import (
    AccessSettings,
    Identity,
    SearchPage,
    SessionIndex,
    SessionPage,
    ShareCredentials,
    SyncData,
    ViewToken,
)
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import Promise, RpcError, Stub

__all__ = ["ClientOptions", "Duration", "ShareClient", "Visibility"]

T = TypeVar("T")

Visibility: TypeAlias = Literal["link", "private", "organization"]
Duration: TypeAlias = float | str
"""Seconds, or text such as ``30d``, ``12h``, ``90m``, ``45s``, ``2w``."""


class ClientOptions(TypedDict, total=False):
    """The arguments of :class:`ShareClient` beside the URL, for who passes them on."""

    token: Token | None
    open_timeout: float
    reconnect: bool
    ssl_context: ssl.SSLContext | None


class ShareClient:
    """A connection to a share server, with Python's names and types.

    ::

        async with rpcshare.ShareClient("https://share.example", token=token) as client:
            share = await client.create_share(session_id, items)
            async for event in client.subscribe(share.id):
                ...

    With ``reconnect`` it outlives its connection: what is asked while there is none waits for the next, and
    what had no answer is asked again, unless that is to delete a share. Event streams go on without a gap.

    Every method raises :class:`~rpcshare.errors.ShareError` with the code that the server gave, and
    :class:`~rpcshare.rpc.SessionClosedError` when the connection is gone.

    Args:
        url: of the server; see :func:`~rpcshare.client.connecting.connect`.
        token: the credential for the handshake; with ``reconnect`` it may be what returns a fresh one.
        open_timeout: in seconds, for the handshake.
        reconnect: make another connection when one is lost.
        ssl_context: which CAs are trusted, and the client certificate to be shown.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        open_timeout: float = 10.0,
        reconnect: bool = False,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._connecting = connect(
            url, token=token, open_timeout=open_timeout, reconnect=reconnect, ssl_context=ssl_context
        )
        self._api: Stub | None = None

    async def __aenter__(self) -> Self:
        self._api = await self._connecting.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._api = None
        await self._connecting.__aexit__(exc_type, exc, traceback)

    @property
    def api(self) -> Stub:
        """The bare stub, for pipelining and for what this class has no method for."""
        if self._api is None:
            raise RuntimeError("a ShareClient is used inside `async with`")
        return self._api

    @property
    def agents(self) -> Agents:
        """The caller's agents."""
        return Agents(lambda: self.api, comes_back=isinstance(self._connecting, Reconnecting))

    @property
    def healing(self) -> Reconnecting:
        """What makes the connections, with their state, if the client was made with ``reconnect``."""
        if not isinstance(self._connecting, Reconnecting):
            raise TypeError("only a connection that heals has states: reconnect=True")
        return self._connecting

    async def create_share(
        self,
        session_id: str,
        data: Sequence[SyncData] | None = None,
        *,
        visibility: Visibility | UnsetType = UNSET,
        expires_in: Duration | UnsetType | None = UNSET,
        password: str | UnsetType | None = UNSET,
    ) -> ShareCredentials:
        """Share a session, with its first sync if there is ``data``, in one round trip.

        Creating a share again gives the same credentials, and applies ``data`` as a sync. What is too long
        for one message follows in further syncs (see :meth:`sync_share`). The other arguments are those of
        :meth:`update_share`.
        """
        first, *rest = [None] if data is None else sync_pieces(data)
        options = _given(visibility=visibility, expiresIn=expires_in, password=password)
        arguments = (session_id, first, options) if options else (session_id, first)
        share = await self._get(self.api.createShare(*arguments), ShareCredentials)
        for piece in rest:
            await self._get(self.api.syncShare(share.id, share.secret, piece), _Synced)
        return share

    async def update_share(
        self,
        share_id: str,
        secret: str | None = None,
        *,
        visibility: Visibility | UnsetType = UNSET,
        expires_in: Duration | UnsetType | None = UNSET,
        password: str | UnsetType | None = UNSET,
    ) -> AccessSettings:
        """Change who may read a share, and until when; return how that is now.

        Args:
            share_id: which share.
            secret: of the share; its owner may leave it out.
            visibility: ``link``: whoever has the link, and the password if there is one; ``private``: its
                owner, and who has a view token or the scope ``read``.
            expires_in: seconds, or text such as ``30d``, after which the share is removed; None: never.
            password: without which the link opens nothing; None: none.
        """
        options = _given(visibility=visibility, expiresIn=expires_in, password=password)
        return await self._get(self.api.updateShare(share_id, secret, options), AccessSettings)

    async def create_view_token(
        self, share_id: str, secret: str | None = None, *, expires_in: Duration | None = None
    ) -> ViewToken:
        """Return a token with which anybody may read a share, for 7 days unless ``expires_in`` says so.

        It ends when the share's visibility or password changes. The owner may leave ``secret`` out.
        """
        options = {} if expires_in is None else {"expiresIn": expires_in}
        return await self._get(self.api.createViewToken(share_id, secret, options), ViewToken)

    async def unlock_share(self, share_id: str, password: str) -> ViewToken:
        """Return a token with which to read a share that has a password."""
        return await self._get(self.api.unlockShare(share_id, password), ViewToken)

    async def sync_share(self, share_id: str, secret: str | None, data: Sequence[SyncData]) -> int:
        """Add ``data`` to a share, durably, and return its new sync count.

        The owner of a share may leave ``secret`` out (None). A server applies a sync whole or not at all.
        ``data`` that is longer than about 12 MiB, or has more than 400,000 values, is sent as several syncs,
        one after the other, each once the one before is durable. If one of them fails, those before it stay;
        all of ``data`` may then be sent again, since messages and parts are replaced by their ids.
        """
        count = 0
        for piece in sync_pieces(data):
            count = (await self._get(self.api.syncShare(share_id, secret, piece), _Synced)).sync_count
        return count

    async def delete_share(self, share_id: str, secret: str | None = None) -> None:
        """Take a share down, for good. Its owner may leave ``secret`` out."""
        await self._get(self.api.deleteShare(share_id, secret), dict[str, Any])

    async def get_share(self, share_id: str) -> dict[str, Any]:
        """Return the whole of a share: session, messages, parts, diffs, models, metadata."""
        return await self._get(self.api.getShare(share_id), dict[str, Any])

    async def get_share_metadata(self, share_id: str) -> SessionIndex:
        """Return what a listing tells of a share."""
        return await self._get(self.api.getShareMetadata(share_id), SessionIndex)

    async def list_shares(
        self, *, cursor: str | None = None, limit: int | None = None, query: str | None = None
    ) -> SessionPage:
        """Return a page of the caller's shares, newest first.

        Args:
            cursor: of the page before.
            limit: how many shares at most; the server has a default.
            query: to find in title, directory or id, whatever the case.
        """
        options = {"cursor": cursor, "limit": limit, "query": query}
        given = {name: value for name, value in options.items() if value is not None}
        return await self._get(self.api.listShares(given), SessionPage)

    async def search_shares(
        self, query: str, *, cursor: str | None = None, limit: int | None = None
    ) -> SearchPage:
        """Return where words are, in the shares that the caller may list, the best first.

        Args:
            query: words, "phrases", -not, and filters such as ``tool:bash``.
            cursor: of the page before.
            limit: how many hits at most; the server has a default.
        """
        options = {"query": query, "cursor": cursor, "limit": limit}
        given = {name: value for name, value in options.items() if value is not None}
        return await self._get(self.api.searchShares(given), SearchPage)

    def subscribe(self, share_id: str, *, from_sync_count: int | None = None) -> EventStream:
        """Return the events of a share: a snapshot first, then each sync, ``deleted`` at the end.

        Args:
            share_id: which share.
            from_sync_count: begin with the syncs after this one instead, if the server still has them.
        """
        return EventStream(self.api, share_id, from_sync_count)

    async def whoami(self) -> Identity:
        """Return who the server takes the caller for."""
        return await self._get(self.api.whoami(), Identity)

    async def _get(self, promise: Promise, kind: type[T]) -> T:
        try:
            value = await promise
        except RpcError as exc:
            code = ErrorCode.__members__.get(exc.code or "")
            if code is None:
                raise
            raise ShareError(code, exc.message) from None
        return msgspec.convert(value, kind)


class _Synced(msgspec.Struct, rename={"sync_count": "syncCount"}):
    sync_count: int


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not UNSET}
