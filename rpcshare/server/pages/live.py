"""Pages that change while they are looked at: fragments of them as Server-Sent Events.

The events are not those of the API. Each holds the HTML of what has changed since the one before, drawn once
for all who have seen the same until then; its id is the syncCount, so that a browser that was away resumes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from rpcshare import jsontext
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode
from rpcshare.pages.drawing import Update
from rpcshare.server.failures import explain
from rpcshare.server.pages.answers import HEADERS
from rpcshare.server.pages.drawing_queue import BusyError
from rpcshare.shares.events import Deleted, Event
from rpcshare.shares.hub import Subscription
from rpcshare.shares.outline import Transcript

if TYPE_CHECKING:
    from rpcshare.server.pages.site import PageSite

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
        seen = request.headers.get("last-event-id") or request.query_params.get("after") or ""
        since = int(seen) if seen.isascii() and seen.isdecimal() and len(seen) < 16 else 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._site.connections.hold(caller))
            subscription = await self._site.service.subscribe(caller, share_id, since)
            events = self._events(request, caller, subscription, since)
            return _LiveAnswer(events, subscription, stack.pop_all())

    async def _events(
        self, request: Request, caller: Caller, subscription: Subscription, since: int
    ) -> AsyncIterator[bytes]:
        share_id = subscription.share_id
        end = asyncio.Event()
        if self._is_over:
            end.set()
        self._ends.add(end)
        take_back = caller.standing.on_end(end.set) if caller.standing is not None else None
        waiting: set[asyncio.Task[object]] = set()
        try:
            yield _RETRY
            next_event = asyncio.create_task(_next(subscription))
            ending = asyncio.create_task(end.wait())
            waiting = {next_event, ending}
            is_first = True
            while not end.is_set():
                if not is_first:
                    await asyncio.wait(waiting, timeout=_HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
                    if not next_event.done():
                        yield b": still here\n\n"
                        continue
                    if (event := next_event.result()) is None:
                        return  # the server stops
                    if isinstance(event, Deleted):
                        yield _ended("deleted")
                        return
                    waiting.discard(next_event)
                    next_event = asyncio.create_task(_next(subscription))
                    waiting.add(next_event)
                transcript = await self._site.service.transcript(caller, share_id)
                if is_first or transcript.sync_count != since:
                    yield await self._update(request, transcript, since)
                    since = transcript.sync_count
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

    async def _update(self, request: Request, transcript: Transcript, since: int) -> bytes:
        """Return the event that leads from ``since`` to ``transcript``."""
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

    async def _drawn(self, request: Request, transcript: Transcript, since: int) -> bytes:
        if since == transcript.sync_count:
            update = Update(since)
        else:
            update, _ = await self._site.draw_share(
                request, transcript.share_id, lambda: self._site.pages.update(transcript, since)
            )
        return b"id: %d\ndata: %b\n\n" % (update.sync_count, jsontext.encode(update))


class _LiveAnswer(StreamingResponse):
    """A stream that lets go of its subscription even if its browser is gone before it has begun."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        subscription: Subscription,
        held: contextlib.AbstractContextManager[object],
    ) -> None:
        headers = {**HEADERS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
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


def _last_words(exc: Exception) -> bytes:
    """Return what a browser hears of a failure; nothing if it shall come back."""
    code = explain(exc).code
    if code in _PASSING:
        return b""
    # A share that is not found was there when its stream began.
    return _ended("deleted" if code is ErrorCode.SHARE_NOT_FOUND else code)


def _ended(reason: str) -> bytes:
    return b"event: ended\ndata: " + jsontext.encode({"reason": reason}) + b"\n\n"


async def _next(events: Subscription) -> Event | None:
    return await anext(events, None)
