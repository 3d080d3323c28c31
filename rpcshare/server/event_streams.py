"""Readers of a share's events over plain HTTP: Server-Sent Events, and a WebSocket that only the server uses.

Both get what ``subscribe`` gives (PROTOCOL.md, "Events"). A short event is encoded once for all of them; of a
long one each has what it is made of, which they share, and one part of its text at a time. What a reader does
not take waits, and is merged, in its subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rpcshare.auth.caller import Caller
from rpcshare.auth.rate_limits import ConnectionLimit
from rpcshare.errors import ShareError
from rpcshare.server.return_delay import return_delay, with_return_delay
from rpcshare.shares.event_source import EventSource
from rpcshare.shares.events import Deleted, Event, Refused, Snapshot, Sync

__all__ = [
    "HEARTBEAT",
    "MAX_CHATTER",
    "Deliver",
    "Ending",
    "EventSocket",
    "EventStream",
    "EventStreams",
    "Write",
    "deliver_messages",
    "deliver_server_sent",
]

Write = Callable[[bytes], Awaitable[None]]
"""Sends what is next of a stream's body."""

Deliver = Callable[[EventSource], Coroutine[object, object, "Ending"]]
"""Sends what a reader is told of a subscription, to its end."""

HEARTBEAT = 15.0
"""After so many seconds without an event a stream has a comment: nobody on the way is to take it for dead."""

RETRY = 2000
"""After how many milliseconds a browser comes back when a stream has ended."""

STREAMED = {"Cache-Control": "private, no-store, no-transform", "X-Accel-Buffering": "no"}
"""Headers of a stream: proxies gather what they compress, unless they are told to leave it alone."""

# What a client may send on an event socket, in bytes: it is not looked at.
MAX_CHATTER = 64 * 1024

# How long the last words to a reader may take, in seconds.
CLOSE_TIMEOUT = 1.0


class Ending(Enum):
    """Why a reader gets no more: a WebSocket's close code, and what is said with it."""

    COMPLETE = (1000, "the share has been deleted")
    STOPPED = (1001, "the server is being stopped")
    NO_STANDING = (1008, "the credential has expired or been revoked")
    REFUSED = (1008, "the share may not be read any longer")
    TOO_SLOW = (1013, "too much is held for this reader: come back for the share as it is now")
    CHATTER = (1008, "this WebSocket is for reading")
    GONE = (1006, "")


class EventStreams:
    """Those who read events, and what ends it."""

    def __init__(self, connections: ConnectionLimit) -> None:
        """Count those who read among the ``connections`` of each caller."""
        self.connections = connections
        self._ends: set[Callable[[Ending], None]] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._is_draining = False
        # How many were reading when the server was told to stop.
        self._to_return = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ends)

    async def drain(self) -> None:
        """End all of them, and all that come, and wait until they are gone."""
        self._is_draining = True
        self._to_return = len(self._ends)
        for end in tuple(self._ends):
            end(Ending.STOPPED)
        await self._nobody.wait()

    def last_words(self, ending: Ending) -> bytes:
        """Return what a stream of Server-Sent Events ends with: of a stop, when the reader is to come back.

        Never at once: a browser tries again and again after that time, until the next server is there.
        """
        is_stop = ending is Ending.STOPPED and self._is_draining
        return _retry(RETRY / 1000 + return_delay(self._to_return)) if is_stop else b""

    def reason(self, ending: Ending) -> str:
        """Return what a WebSocket is closed with."""
        said = ending.value[1]
        return with_return_delay(said, self._to_return) if ending is Ending.STOPPED else said

    async def serve(
        self,
        caller: Caller,
        subscription: EventSource,
        deliver: Coroutine[object, object, Ending],
        listen: Coroutine[object, object, Ending],
    ) -> Ending:
        """Run ``deliver`` until it is through, or something else ends it; return what did.

        Args:
            caller: who reads; whose standing may end.
            subscription: what is read.
            deliver: sends the events.
            listen: returns when the client wants no more of them.
        """
        loop = asyncio.get_running_loop()
        ordered: asyncio.Future[Ending] = loop.create_future()

        def end(ending: Ending) -> None:
            if not ordered.done():
                ordered.set_result(ending)

        standing = caller.standing
        take_back = None if standing is None else standing.on_end(partial(end, Ending.NO_STANDING))
        subscription.on_give_up(partial(end, Ending.TOO_SLOW))
        self._ends.add(end)
        self._nobody.clear()
        if self._is_draining:
            end(Ending.STOPPED)
        tasks = [loop.create_task(deliver), loop.create_task(listen)]
        try:
            done, _ = await asyncio.wait([ordered, *tasks], return_when=asyncio.FIRST_COMPLETED)
            return (ordered if ordered in done else done.pop()).result()
        finally:
            for task in tasks:
                task.cancel()
            # Cancelled, they end; how else they end is told above.
            await asyncio.gather(*tasks, return_exceptions=True)
            if take_back is not None:
                take_back()
            self._ends.discard(end)
            if not self._ends:
                self._nobody.set()


class EventStream(Response):
    """The answer with what is told of a share's events, as Server-Sent Events."""

    media_type = "text/event-stream"
    charset = "utf-8"

    def __init__(
        self,
        event_streams: EventStreams,
        caller: Caller,
        subscription: EventSource,
        held: contextlib.AbstractContextManager[object],
        *,
        deliver: Callable[[EventSource, Write], Coroutine[object, object, Ending]],
        headers: Mapping[str, str] | None = None,
        last_words: Mapping[Ending, bytes] | None = None,
    ) -> None:
        """Answer ``caller``, and exit ``held`` after the last event.

        Args:
            event_streams: those it is one of.
            caller: who reads.
            subscription: what is read.
            held: what it takes of the caller's.
            deliver: writes the events of the subscription.
            headers: of the answer, besides those of every stream.
            last_words: what is written last, by what has ended it.
        """
        self._event_streams = event_streams
        self._caller = caller
        self._subscription = subscription
        self._held = held
        self._deliver = deliver
        self._last_words = last_words or {}
        self.status_code = 200
        self.background = None
        self.init_headers({**(headers or {}), **STREAMED})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events."""

        async def write(body: bytes) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": True})

        async def answer(events: EventSource) -> Ending:
            # A client that has left may take not even this.
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            return Ending.COMPLETE if scope["method"] == "HEAD" else await self._deliver(events, write)

        with self._held:
            async with self._subscription as events:
                listening = _until_disconnected(receive)
                ending = await self._event_streams.serve(self._caller, events, answer(events), listening)
            if ending is not Ending.GONE:
                with contextlib.suppress(TimeoutError):  # then it is cut off without
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        body = self._last_words.get(ending, b"") + self._event_streams.last_words(ending)
                        await send({"type": "http.response.body", "body": body, "more_body": False})


async def deliver_server_sent(events: EventSource, write: Write) -> Ending:
    """Send the events of a share as the API has them."""
    await write(_retry(RETRY / 1000))
    event: Event | None = None
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT):
                event = await anext(events)
        except TimeoutError:
            await write(b":\n\n")
            continue
        except StopAsyncIteration:
            return Ending.COMPLETE if isinstance(event, Deleted) else Ending.STOPPED
        except ShareError as exc:
            await write(_server_sent(Refused.because(exc, events.share_id)))
            return Ending.REFUSED
        if not (isinstance(event, Snapshot | Sync) and event.is_large):
            await write(_server_sent(event))
            continue
        await write(_number_line(event) + b"data: ")
        with contextlib.closing(events.parts(event)) as parts:
            event = None  # it is held no longer than its parts are
            for part in parts:
                await write(part)
                await asyncio.sleep(0)  # a reader that takes all at once is not the only one
        await write(b"\n\n")


def _retry(seconds: float) -> bytes:
    return b"retry: %d\n\n" % (seconds * 1000)


def _server_sent(event: Event) -> bytes:
    """Return an event as a stream has it, made once for however many there are."""
    forms = event.__dict__
    form = forms.get("server_sent")
    if not isinstance(form, bytes):
        # JSON has no line breaks, as it is written here, that could end the line.
        form = forms["server_sent"] = b"%bdata: %b\n\n" % (_number_line(event), event.json)
    return form


def _number_line(event: Event) -> bytes:
    return b"id: %b\n" % event.event_id if event.event_id else b""


async def _until_disconnected(receive: Receive) -> Ending:
    while (await receive())["type"] != "http.disconnect":
        pass
    return Ending.GONE


class PartsTransport(Protocol):
    """What sends a message in parts."""

    async def send_text_in_parts(self, parts: Iterable[bytes]) -> None:
        """Send one text message, the next part of it when most of the last has been taken.

        Raises:
            OSError: the peer is gone.
        """
        ...


class EventSocket:
    """Sends what is told of a share's events over a WebSocket that has been accepted."""

    def __init__(
        self, event_streams: EventStreams, caller: Caller, subscription: EventSource, deliver: Deliver
    ) -> None:
        self._event_streams = event_streams
        self._caller = caller
        self._subscription = subscription
        self._deliver = deliver

    async def run(self, receive: Receive, send: Send, last_words: Mapping[Ending, str] | None = None) -> None:
        """Send all events, then ``last_words`` by what has ended them, then close."""
        async with self._subscription as events:
            try:
                ending = await self._event_streams.serve(
                    self._caller, events, self._deliver(events), _until_closed(receive)
                )
            except OSError:  # how a server tells of a peer that is gone
                return
        if ending is not Ending.GONE:
            code, reason = ending.value[0], self._event_streams.reason(ending)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    if last_words and ending in last_words:
                        await send({"type": "websocket.send", "text": last_words[ending]})
                    await send({"type": "websocket.close", "code": code, "reason": reason})


async def deliver_messages(events: EventSource, send: Send, transport: PartsTransport) -> Ending:
    """Send the events of a share as the API has them, one text message each."""
    event: Event | None = None
    try:
        async for event in events:
            if isinstance(event, Snapshot | Sync) and event.is_large:
                with contextlib.closing(events.parts(event)) as parts:
                    event = None  # noqa: PLW2901 -- as above
                    await transport.send_text_in_parts(parts)
            else:
                await send({"type": "websocket.send", "text": _text(event)})
    except ShareError as exc:
        refused = Refused.because(exc, events.share_id)
        await send({"type": "websocket.send", "text": _text(refused)})
        return Ending.REFUSED
    return Ending.COMPLETE if isinstance(event, Deleted) else Ending.STOPPED


def _text(event: Event) -> str:
    """Return an event as text, decoded once for however many messages."""
    forms = event.__dict__
    form = forms.get("text")
    if not isinstance(form, str):
        form = forms["text"] = event.json.decode()
    return form


async def _until_closed(receive: Receive) -> Ending:
    """Return when the client of a WebSocket is gone, or has sent more than it has to say."""
    chatter = 0
    while (message := await receive())["type"] == "websocket.receive":
        chatter += len(message.get("text") or message.get("bytes") or "")
        if chatter > MAX_CHATTER:
            return Ending.CHATTER
    return Ending.GONE
