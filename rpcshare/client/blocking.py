"""The typed client for programs without an event loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import anyio
from msgspec import UNSET, UnsetType

from rpcshare.client.blocking_agents import BlockingAgents
from rpcshare.client.forks import ForkedError
from rpcshare.client.reconnecting import ConnectionState
from rpcshare.client.share_client import ClientOptions, Duration, ShareClient, Visibility
from rpcshare.client.types import (
    AccessSettings,
    Identity,
    SearchPage,
    SessionIndex,
    SessionPage,
    ShareCredentials,
    ShareEvent,
    SyncData,
    ViewToken,
)

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ["BlockingShareClient", "connect_blocking"]

T = TypeVar("T")


def connect_blocking(url: str, **options: Unpack[ClientOptions]) -> BlockingShareClient:
    """Connect to a share server from a plain script.

    ::

        with rpcshare.connect_blocking("https://share.example", token=token) as client:
            print(client.create_share(session_id, items).url)

    Takes and raises what :class:`~rpcshare.client.share_client.ShareClient` does.
    """
    return BlockingShareClient(url, **options)


class BlockingShareClient:
    """:class:`~rpcshare.client.share_client.ShareClient`, with methods that return when they are done.

    Its connection lives on an event loop in a thread of its own, so it answers the server's pings while the
    program does something else. Any thread may use it, but no process that is forked while it is open: there
    every method raises RuntimeError.
    """

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        self._connecting = ShareClient(url, **options)
        self._client: ShareClient | None = None
        self._process_id = 0
        self._portal: BlockingPortal
        self._thread: threading.Thread

    def __enter__(self) -> Self:
        self._process_id = os.getpid()
        ready: Future[BlockingPortal] = Future()
        # Of anyio's start_blocking_portal the end is that of a generator, which hangs in a process that is
        # forked, or where the block is never left.
        self._thread = threading.Thread(target=_run_portal, args=(ready,), name="rpcshare", daemon=True)
        self._thread.start()
        self._portal = ready.result()
        try:
            self._client = self._run(self._connecting.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        client, self._client = self._client, None
        # The thread that would end it is the other process's, and so is the connection.
        if client is not None and not self._is_forked:
            try:
                self._run(client.__aexit__(None, None, None))
            finally:
                self._stop()

    def create_share(
        self,
        session_id: str,
        data: Sequence[SyncData] | None = None,
        *,
        visibility: Visibility | UnsetType = UNSET,
        expires_in: Duration | UnsetType | None = UNSET,
        password: str | UnsetType | None = UNSET,
    ) -> ShareCredentials:
        """See :meth:`ShareClient.create_share`."""
        creating = self._connected.create_share(
            session_id, data, visibility=visibility, expires_in=expires_in, password=password
        )
        return self._run(creating)

    def update_share(
        self,
        share_id: str,
        secret: str | None = None,
        *,
        visibility: Visibility | UnsetType = UNSET,
        expires_in: Duration | UnsetType | None = UNSET,
        password: str | UnsetType | None = UNSET,
    ) -> AccessSettings:
        """See :meth:`ShareClient.update_share`."""
        updating = self._connected.update_share(
            share_id, secret, visibility=visibility, expires_in=expires_in, password=password
        )
        return self._run(updating)

    def create_view_token(
        self, share_id: str, secret: str | None = None, *, expires_in: Duration | None = None
    ) -> ViewToken:
        """See :meth:`ShareClient.create_view_token`."""
        return self._run(self._connected.create_view_token(share_id, secret, expires_in=expires_in))

    def unlock_share(self, share_id: str, password: str) -> ViewToken:
        """See :meth:`ShareClient.unlock_share`."""
        return self._run(self._connected.unlock_share(share_id, password))

    def sync_share(self, share_id: str, secret: str | None, data: Sequence[SyncData]) -> int:
        """See :meth:`ShareClient.sync_share`."""
        return self._run(self._connected.sync_share(share_id, secret, data))

    def delete_share(self, share_id: str, secret: str | None = None) -> None:
        """See :meth:`ShareClient.delete_share`."""
        self._run(self._connected.delete_share(share_id, secret))

    def get_share(self, share_id: str) -> dict[str, Any]:
        """See :meth:`ShareClient.get_share`."""
        return self._run(self._connected.get_share(share_id))

    def get_share_metadata(self, share_id: str) -> SessionIndex:
        """See :meth:`ShareClient.get_share_metadata`."""
        return self._run(self._connected.get_share_metadata(share_id))

    def list_shares(
        self, *, cursor: str | None = None, limit: int | None = None, query: str | None = None
    ) -> SessionPage:
        """See :meth:`ShareClient.list_shares`."""
        return self._run(self._connected.list_shares(cursor=cursor, limit=limit, query=query))

    def search_shares(self, query: str, *, cursor: str | None = None, limit: int | None = None) -> SearchPage:
        """See :meth:`ShareClient.search_shares`."""
        return self._run(self._connected.search_shares(query, cursor=cursor, limit=limit))

    def whoami(self) -> Identity:
        """See :meth:`ShareClient.whoami`."""
        return self._run(self._connected.whoami())

    def subscribe(self, share_id: str, *, from_sync_count: int | None = None) -> Iterator[ShareEvent]:
        """Yield the events of a share as they come; see :meth:`ShareClient.subscribe`."""
        events = self._connected.subscribe(share_id, from_sync_count=from_sync_count)
        try:
            while True:
                try:
                    event = self._run(anext(events))
                except StopAsyncIteration:
                    return
                yield event
        finally:
            if not self._is_forked:
                self._run(events.aclose())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the method that has ``name`` on the wire, to be called with what it takes there."""
        if name.startswith("_"):
            raise AttributeError(name)

        async def call(arguments: tuple[object, ...]) -> object:
            return await self._connected.api[name](*arguments)

        return lambda *arguments: self._run(call(arguments))

    @property
    def agents(self) -> BlockingAgents:
        """The caller's agents; see :attr:`ShareClient.agents`."""
        return BlockingAgents(self._connected.agents, self._run)

    @property
    def state(self) -> ConnectionState:
        """Where the connection is in its life, if the client was made with ``reconnect``."""
        return self._connected.healing.state

    @property
    def _is_forked(self) -> bool:
        """Whether this is a copy, in a process that was forked from the one that has the connection."""
        return self._process_id not in (0, os.getpid())

    @property
    def _connected(self) -> ShareClient:
        if self._is_forked:
            raise ForkedError
        if self._client is None:
            raise RuntimeError("a BlockingShareClient is used inside `with`")
        return self._client

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` on the loop and wait for it; an interrupt of the wait cancels it."""
        if self._is_forked:
            work.close()
            raise ForkedError
        future: Future[T] = self._portal.start_task_soon(lambda: work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _stop(self) -> None:
        self._portal.call(self._portal.stop)
        self._thread.join()


def _run_portal(ready: Future[BlockingPortal]) -> None:
    """Run an event loop until its portal, which ``ready`` is given, is stopped."""
    from anyio.from_thread import BlockingPortal  # noqa: PLC0415 -- not every script connects

    async def serve() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(serve)
    except BaseException as exc:
        if ready.done():
            raise
        ready.set_exception(exc)
