"""Pages that change while they are looked at: fragments of them over a WebSocket, or as Server-Sent Events.

Browsers open six connections to a server over HTTP/1.1, and a stream takes one of them for as long as its
page is open; WebSockets have a limit of their own, of hundreds. So the stream is for browsers behind a proxy
that passes no WebSockets.

The events are not those of the API. Each holds the HTML of what has changed since the one before, drawn once
for all who have seen the same until then; its id is the syncCount, so that a browser that was away resumes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from rpcshare import jsontext
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode
from rpcshare.render.rendering import Update
from rpcshare.render.sessions import is_counted
from rpcshare.server.event_streams import (
    HEARTBEAT,
    MAX_CHATTER,
    Ending,
    EventSocket,
    EventStream,
    EventStreams,
    Write,
)
from rpcshare.server.failures import error_response, explain
from rpcshare.server.request import request_head
from rpcshare.server.web.relatives import RelativeFinder
from rpcshare.server.web.render_queue import BusyError
from rpcshare.server.web.responses import HEADERS
from rpcshare.server.websocket_protocol import DIRECT
from rpcshare.shares.event_source import EventSource
from rpcshare.shares.events import Deleted, Event
from rpcshare.shares.outline import Transcript

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite

__all__ = ["LiveStreams"]

_PAUSE = 0.08  # seconds between two updates of one page: syncs in between make one
_KEPT = 64  # updates
_PASSING = (ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.INTERNAL)  # failures after which to come back
_RETRY = b"retry: 1500\n\n"


class LiveStreams:
    """The pages that are live, and the updates that they share."""

    def __init__(self, site: PageSite) -> None:
        self._site = site
        self._relatives = RelativeFinder(site.service)
        self._readers = EventStreams(site.connections)
        self._updates: OrderedDict[tuple[object, ...], asyncio.Task[bytes]] = OrderedDict()

    async def drain(self) -> None:
        """Let all end, and all that come; their browsers will come back."""
        await self._readers.drain()

    async def stream(self, request: Request, caller: Caller) -> Response:
        """Return the updates of a page that shows a share as it was after ``?after=`` syncs."""
        share_id = request.path_params["share_id"]
        since = _sync_count(request.headers.get("last-event-id") or request.query_params.get("after") or "")

        async def deliver(events: EventSource, write: Write) -> Ending:
            await write(_RETRY)
            return await self._deliver(request, caller, events, since, lambda told: write(_server_sent(told)))

        with contextlib.ExitStack() as stack:
            stack.enter_context(self._site.connections.hold(caller))
            subscription = await self._site.service.subscribe(caller, share_id, since)
            return EventStream(
                self._readers,
                caller,
                subscription,
                stack.pop_all(),
                deliver=deliver,
                headers=HEADERS,
                last_words={Ending.NO_STANDING: _server_sent(_ended(ErrorCode.UNAUTHORIZED))},
            )

    async def socket(self, websocket: WebSocket) -> None:
        """Send the updates of a page over a WebSocket, each as a text message."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                head = request_head(websocket)
                self._site.origins.check(head)
                caller = await self._site.authenticator.caller(head)
                stack.enter_context(self._site.connections.hold(caller))
                since = _sync_count(websocket.query_params.get("after") or "")
                share_id = websocket.path_params["share_id"]
                subscription = await self._site.service.subscribe(caller, share_id, since)
                await stack.enter_async_context(subscription)
            except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
                await websocket.receive()  # the handshake, which is answered in its place
                await websocket.send_denial_response(error_response(exc))
                return
            websocket.scope["extensions"][DIRECT].limit_messages(2 * MAX_CHATTER)
            await websocket.accept()

            async def tell(told: _Message | None) -> None:
                if told is not None:  # of a peer that is gone, pings tell
                    await websocket.send_text(told.data.decode())

            def deliver(events: EventSource) -> Coroutine[object, object, Ending]:
                return self._deliver(websocket, caller, events, since, tell)

            last_words = {Ending.NO_STANDING: _ended(ErrorCode.UNAUTHORIZED).data.decode()}
            with contextlib.suppress(WebSocketDisconnect):  # how Starlette tells of a peer that is gone
                socket = EventSocket(self._readers, caller, subscription, deliver)
                await socket.run(websocket.receive, websocket.send, last_words)

    async def _deliver(
        self, request: HTTPConnection, caller: Caller, events: EventSource, since: int, tell: _Tell
    ) -> Ending:
        """Tell a page what changes after ``since``, to the end; None while nothing does."""
        is_first = True
        try:
            while True:
                transcript = await self._site.service.transcript(caller, events.share_id)
                if is_first or transcript.sync_count != since:
                    transcript = await self._relatives.find(caller, transcript)
                    update = await self._update(request, transcript, since)
                    since = transcript.sync_count
                    del transcript  # which a page that is slow does not hold either
                    await tell(_Message(update, since))
                    await asyncio.sleep(_PAUSE)
                is_first = False
                kind = await _next(events, tell)
                if kind is None:
                    return Ending.STOPPED
                if kind is Deleted:
                    await tell(_ended("deleted"))
                    return Ending.COMPLETE
        except BusyError:
            return Ending.STOPPED  # the browser comes back
        except (OSError, WebSocketDisconnect):  # how a peer that is gone is told of
            raise
        except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
            if last := _last_words(exc):
                await tell(last)
            return Ending.REFUSED

    async def _update(self, request: HTTPConnection, transcript: Transcript, since: int) -> bytes:
        """Return the update that leads from ``since`` to ``transcript``."""
        related = (transcript.children, transcript.parent)
        key = (transcript.share_id, transcript.generation, since, transcript.sync_count, related)
        task = self._updates.get(key)
        if task is None:
            task = self._updates[key] = asyncio.create_task(self._drawn(request, transcript, since))
            task.add_done_callback(partial(self._forget_failed, key))
            while len(self._updates) > _KEPT:
                self._updates.popitem(last=False)
        # The one that began it may be gone before the others have it.
        return await asyncio.shield(task)

    def _forget_failed(self, key: tuple[object, ...], task: asyncio.Task[bytes]) -> None:
        """Let the next who wants it try again."""
        if (task.cancelled() or task.exception() is not None) and self._updates.get(key) is task:
            del self._updates[key]

    async def _drawn(self, request: HTTPConnection, transcript: Transcript, since: int) -> bytes:
        if since == transcript.sync_count and is_counted(transcript):
            update = Update(since)
        else:
            update, _ = await self._site.draw_share(
                request, transcript.share_id, lambda: self._site.pages.update(transcript, since)
            )
        return jsontext.encode(update)


class _Message(NamedTuple):
    """What a page is told."""

    data: bytes
    """JSON: an update, or the reason why there are no more."""
    sync_count: int | None
    """Which the update leads to; None with a reason."""


_Tell = Callable[[_Message | None], Awaitable[None]]


def _server_sent(told: _Message | None) -> bytes:
    if told is None:
        return b": still here\n\n"
    if told.sync_count is None:
        return b"event: ended\ndata: %b\n\n" % told.data
    return b"id: %d\ndata: %b\n\n" % (told.sync_count, told.data)


def _sync_count(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _last_words(exc: Exception) -> _Message | None:
    """Return what a browser hears of a failure; nothing if it shall come back."""
    code = explain(exc).code
    if code in _PASSING:
        return None
    # A share that is not found was there when its stream began.
    return _ended("deleted" if code is ErrorCode.SHARE_NOT_FOUND else code)


def _ended(reason: str) -> _Message:
    return _Message(jsontext.encode({"reason": reason}), None)


async def _next(events: EventSource, tell: _Tell) -> type[Event] | None:
    """Return of what kind the next event is, and let go of it: a page that is slow holds none."""
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT):
                event = await anext(events, None)
        except TimeoutError:
            await tell(None)
        else:
            return None if event is None else type(event)
