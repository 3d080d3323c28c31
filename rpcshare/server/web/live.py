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
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from rpcshare import jsontext
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode
from rpcshare.render.rendering import Update
from rpcshare.server.event_streams import CLOSE_TIMEOUT, MAX_CHATTER, STREAMED, until_closed
from rpcshare.server.failures import error_response, explain
from rpcshare.server.request import request_head
from rpcshare.server.web.render_queue import BusyError
from rpcshare.server.web.responses import HEADERS
from rpcshare.server.websocket_protocol import DIRECT
from rpcshare.shares.events import Deleted, Event
from rpcshare.shares.outline import Transcript
from rpcshare.shares.subscriptions import Subscription

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite

__all__ = ["LiveStreams"]

_HEARTBEAT = 15.0  # seconds
_PAUSE = 0.08  # seconds between two updates of one page: syncs in between make one
_KEPT = 64  # updates
_PASSING = (ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.INTERNAL)  # failures after which to come back
_RETRY = b"retry: 1500\n\n"


class LiveStreams:
    """The open streams, and the updates that they share."""

    def __init__(self, site: PageSite) -> None:
        self._site = site
        self._updates: OrderedDict[tuple[str, str, int, int], asyncio.Task[bytes]] = OrderedDict()
        self._ends: set[asyncio.Event] = set()  # one for each open stream, to be set when it must end
        self._is_over = False

    def end(self) -> None:
        """Let all streams end; their browsers will come back."""
        self._is_over = True
        for end in self._ends:
            end.set()

    async def stream(self, request: Request, caller: Caller) -> Response:
        """Return the updates of a page that shows a share as it was after ``?after=`` syncs."""
        share_id = request.path_params["share_id"]
        since = _sync_count(request.headers.get("last-event-id") or request.query_params.get("after") or "")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._site.connections.hold(caller))
            subscription = await self._site.service.subscribe(caller, share_id, since)
            events = _server_sent(self._events(request, caller, subscription, since))
            return _LiveAnswer(events, subscription, stack.pop_all())

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
            events = await stack.enter_async_context(
                contextlib.aclosing(self._events(websocket, caller, subscription, since))
            )
            with contextlib.suppress(OSError, WebSocketDisconnect):  # how a peer that is gone is told of
                await _until_first(_send_all(events, websocket), until_closed(websocket.receive))
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await websocket.close(1001)

    async def _events(  # noqa: C901, PLR0912 -- the order of what ends a stream is in one place
        self, request: HTTPConnection, caller: Caller, subscription: Subscription, since: int
    ) -> AsyncGenerator[_Message | None]:
        """Yield what the page is to be told; None after a while without anything."""
        share_id = subscription.share_id
        end = asyncio.Event()
        if self._is_over:
            end.set()
        self._ends.add(end)
        take_back = caller.standing.on_end(end.set) if caller.standing is not None else None
        waiting: set[asyncio.Task[object]] = set()
        try:
            next_event = asyncio.create_task(_next(subscription))
            ending = asyncio.create_task(end.wait())
            waiting = {next_event, ending}
            is_first = True
            while not end.is_set():
                if not is_first:
                    await asyncio.wait(waiting, timeout=_HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
                    if not next_event.done():
                        yield None
                        continue
                    if (event := next_event.result()) is None:
                        return  # the server stops
                    if event is Deleted:
                        yield _ended("deleted")
                        return
                    waiting.discard(next_event)
                    next_event = asyncio.create_task(_next(subscription))
                    waiting.add(next_event)
                transcript = await self._site.service.transcript(caller, share_id)
                if is_first or transcript.sync_count != since:
                    update = await self._update(request, transcript, since)
                    since = transcript.sync_count
                    del transcript  # which a page that is slow does not hold either
                    yield _Message(update, since)
                    await asyncio.sleep(_PAUSE)
                is_first = False
            if caller.has_lost_standing:
                yield _ended(ErrorCode.UNAUTHORIZED)
        except BusyError:
            return  # the browser comes back
        except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
            if last := _last_words(exc):
                yield last
        finally:
            for task in waiting:
                task.cancel()
            if take_back is not None:
                take_back()
            self._ends.discard(end)

    async def _update(self, request: HTTPConnection, transcript: Transcript, since: int) -> bytes:
        """Return the update that leads from ``since`` to ``transcript``."""
        key = (transcript.share_id, transcript.generation, since, transcript.sync_count)
        task = self._updates.get(key)
        if task is None:
            task = self._updates[key] = asyncio.create_task(self._drawn(request, transcript, since))
            task.add_done_callback(partial(self._forget_failed, key))
            while len(self._updates) > _KEPT:
                self._updates.popitem(last=False)
        # The one that began it may be gone before the others have it.
        return await asyncio.shield(task)

    def _forget_failed(self, key: tuple[str, str, int, int], task: asyncio.Task[bytes]) -> None:
        """Let the next who wants it try again."""
        if (task.cancelled() or task.exception() is not None) and self._updates.get(key) is task:
            del self._updates[key]

    async def _drawn(self, request: HTTPConnection, transcript: Transcript, since: int) -> bytes:
        if since == transcript.sync_count:
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


async def _server_sent(messages: AsyncGenerator[_Message | None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(messages):
        yield _RETRY
        async for message in messages:
            if message is None:
                yield b": still here\n\n"
            elif message.sync_count is None:
                yield b"event: ended\ndata: %b\n\n" % message.data
            else:
                yield b"id: %d\ndata: %b\n\n" % (message.sync_count, message.data)


async def _send_all(messages: AsyncGenerator[_Message | None], websocket: WebSocket) -> None:
    async for message in messages:
        if message is not None:  # of a peer that is gone, pings tell
            await websocket.send_text(message.data.decode())


async def _until_first(*coroutines: Coroutine[object, object, object]) -> None:
    """Run ``coroutines`` until one of them is through; raise what it raised."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _sync_count(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


class _LiveAnswer(StreamingResponse):
    """A stream that lets go of its subscription even if its browser is gone before it has begun."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        subscription: Subscription,
        held: contextlib.AbstractContextManager[object],
    ) -> None:
        headers = {**HEADERS, **STREAMED}
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._subscription = subscription
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            async with self._subscription:
                if scope["method"] == "HEAD":
                    await Response(headers=dict(self.headers))(scope, receive, send)
                else:
                    await super().__call__(scope, receive, send)


def _last_words(exc: Exception) -> _Message | None:
    """Return what a browser hears of a failure; nothing if it shall come back."""
    code = explain(exc).code
    if code in _PASSING:
        return None
    # A share that is not found was there when its stream began.
    return _ended("deleted" if code is ErrorCode.SHARE_NOT_FOUND else code)


def _ended(reason: str) -> _Message:
    return _Message(jsontext.encode({"reason": reason}), None)


async def _next(events: Subscription) -> type[Event] | None:
    """Return of what kind the next event is, and let go of it: a page that is slow holds none."""
    event = await anext(events, None)
    return None if event is None else type(event)
