"""Events of a share as calls to a subscriber's function."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import structlog

from rpcshare import jsontext
from rpcshare.auth.caller import Caller
from rpcshare.auth.rate_limits import network_of
from rpcshare.errors import ErrorCode
from rpcshare.rpc import JSON, Codec, Preencoded, RpcError, RpcTarget, Stub, notify, rpc_method, when_room
from rpcshare.rpc.sliced_encoding import encode_text
from rpcshare.shares.document import Document
from rpcshare.shares.events import Event, Refused, Snapshot, Sync
from rpcshare.shares.service import ShareService
from rpcshare.shares.subscriptions import Subscription

__all__ = ["CallbackSubscription", "event_stream", "preencoded"]

logger = structlog.get_logger("rpcshare.server")

# How many events may be on their way to a subscriber. Enough to fill a link of 100 ms at 300 syncs a second;
# what comes on top waits, and is merged, in the subscription (PROTOCOL.md, "Subscriptions").
WINDOW = 32

LARGEST_DOCUMENT = 128 * 2**20
"""Bytes of a share that one result may bring: on its way it is in memory several times."""

# Bytes of a document that is encoded in one step.
_SHORT = 64 * 1024

LARGE_EVENTS = 64 * 2**20
"""Bytes of large events that may be on their way to all subscriptions of one caller together."""


def preencoded(event: Event) -> Preencoded:
    """Return the event as the wire carries it, encoded once for however many subscribers."""
    forms = event.__dict__
    form = forms.get("preencoded")
    if not isinstance(form, Preencoded):
        if isinstance(event, Snapshot | Sync) and event.is_large:
            # Its text is not kept, and is nothing that the peer refers to parts of.
            form = Preencoded(load=lambda: jsontext.decode(b"".join(event.text_parts())), size=event.size)
        else:
            load = functools.partial(jsontext.decode, event.json)
            form = Preencoded(load=load, size=len(event.json))
        forms["preencoded"] = form
    return form


async def preencoded_document(document: Document, codec: Codec) -> Preencoded:
    """Return the document as the wire carries it, encoded once for however many readers.

    Raises:
        RpcError: it is too large for one result.
    """
    if document.size > LARGEST_DOCUMENT:
        message = (
            f"limit exceeded: bytes of a share in one result (at most {LARGEST_DOCUMENT:,}, it has "
            f"{document.size:,}); GET /api/share/{{id}} has no such limit"
        )
        raise RpcError(message, code=ErrorCode.PAYLOAD_TOO_LARGE.value)
    forms = document.__dict__
    form = forms.get("preencoded")
    if not isinstance(form, Preencoded):
        # Without a reference to the document itself, whose form this is.
        pieces = document.pieces
        form = forms["preencoded"] = Preencoded(
            load=lambda: jsontext.decode(b"".join(pieces())),
            size=document.size,
            count=lambda most: JSON.count(b"".join(pieces()), most),
        )
    if document.size > _SHORT:
        async with _ENCODING.held(document.size):
            await _encode_aside(form, document.text_in_parts, codec, forms)
    return form


async def preencoded_large(event: Event, codec: Codec) -> Preencoded:
    """Return what :func:`preencoded` does, encoded in time slices."""
    form = preencoded(event)
    await _encode_aside(form, event.text_in_parts, codec, event.__dict__)
    return form


async def _encode_aside(
    form: Preencoded, text: Callable[[], jsontext.InParts], codec: Codec, forms: dict[str, object]
) -> None:
    """Have ``form`` encoded in time slices, once for all who want it at the same time."""
    name = codec.subprotocol
    if name in form.encoded:
        return
    making = forms.get(f"encoding {name}")
    if not isinstance(making, asyncio.Task) or making.done():
        making = forms[f"encoding {name}"] = asyncio.create_task(_encode(form, text, codec))
    await asyncio.shield(making)


async def _encode(form: Preencoded, text: Callable[[], jsontext.InParts], codec: Codec) -> None:
    encoded = form.encoded[codec.subprotocol] = await encode_text(text(), codec)
    form.size = len(encoded)


class _Room:
    """Memory for large events on their way to subscribers, each of which has a copy in its connection.

    Who finds none waits, and what happens meanwhile is merged in its subscription.
    """

    def __init__(self, size: int) -> None:
        self._size = size  # bytes
        self._used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for ``size`` bytes, and have it; what is alone has as much as it takes."""
        while self._used and self._used + size > self._size:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)
        self._used += size
        try:
            yield
        finally:
            self._used -= size
            waiting, self._waiting = self._waiting, deque()
            for turn in waiting:
                if not turn.done():
                    turn.set_result(None)


# For documents that are being encoded; that comes to its end whatever their readers do.
_ENCODING = _Room(LARGE_EVENTS)

# By who is to pay for it: events are on their way for as long as their reader likes.
_rooms: WeakValueDictionary[str, _Room] = WeakValueDictionary()


def _room_of(caller: Caller) -> _Room:
    """Return the room that all subscriptions of a caller share."""
    owner = caller.subject or network_of(caller.address)
    room = _rooms.get(owner)
    if room is None:
        room = _rooms[owner] = _Room(LARGE_EVENTS)
    return room


def _size(event: Event) -> int:
    return event.size if isinstance(event, Snapshot | Sync) else 0


async def event_stream(
    service: ShareService, caller: Caller, share_id: str, from_sync_count: int | None, codec: Codec
) -> AsyncIterator[Preencoded]:
    """Yield the events of a share, subscribing when the first is asked for."""
    room = _room_of(caller)
    async with await service.subscribe(caller, share_id, from_sync_count) as events:
        async for event in events:
            if not event.is_large:
                yield preencoded(event)
                continue
            async with room.held(_size(event)):
                yield await preencoded_large(event, codec)


class CallbackSubscription(RpcTarget):
    """What ``subscribe`` returns. Disposing of it unsubscribes, and so does losing the connection."""

    def __init__(self, subscription: Subscription, on_event: Stub, caller: Caller, codec: Codec) -> None:
        self._codec = codec
        self._room = _room_of(caller)
        self._subscription = subscription
        self._on_event = on_event.dup()
        self._in_flight = 0
        self._waits_for_room = False
        self._is_over = False
        self._large: asyncio.Task[None] | None = None  # sends an event that is large
        self._has_answered = asyncio.Event()
        self._on_event.on_broken(self._break)
        # The first event follows what `subscribe` returns.
        asyncio.get_running_loop().call_soon(self._begin)

    @rpc_method("unsubscribe()")
    def unsubscribe(self) -> None:
        """Send no more events."""
        self._end()

    def dispose(self) -> None:
        """The subscriber has let go of the subscription."""
        self._end()

    def _begin(self) -> None:
        if not self._is_over:
            self._subscription.call_when_ready(self._deliver)
            self._deliver()

    def _deliver(self) -> None:
        """Send what there is, as far as there is room for it on the way."""
        while not self._is_over and self._in_flight < WINDOW and self._large is None:
            if self._waits_for_room or not when_room(self._on_event, self._go_on):
                self._waits_for_room = not self._is_over
                return
            event = self._subscription.take()
            if event is not None:
                if event.is_large:
                    self._large = asyncio.create_task(self._send_large(event))
                    return
                self._in_flight += 1
                self._send(event, self._answered)
                continue
            if self._subscription.is_over:
                if (error := self._subscription.error) is not None:
                    # A call is all that a subscriber hears, so its last one says why there will be no other.
                    self._send(Refused.because(error, self._subscription.share_id), _ignore)
                self._end()
            return

    def _go_on(self) -> None:
        self._waits_for_room = False
        self._deliver()

    def _send(self, event: Event, answered: Callable[[Exception | None], None]) -> None:
        try:
            notify(self._on_event, (preencoded(event),), answered)
        except RpcError as exc:
            logger.warning("an event cannot be sent", share=event.share_id, error=exc.message)
            self._end()

    async def _send_large(self, event: Event) -> None:
        """Send an event once there is room for it; nothing else until the subscriber has it."""
        async with self._room.held(_size(event)):
            await preencoded_large(event, self._codec)
            if self._is_over:
                return
            self._in_flight += 1
            self._has_answered.clear()
            self._send(event, self._answered_large)
            if not self._is_over:
                await self._has_answered.wait()
        self._large = None
        self._deliver()

    def _answered_large(self, error: Exception | None) -> None:
        self._has_answered.set()
        self._answered(error)

    def _answered(self, error: Exception | None) -> None:
        self._in_flight -= 1
        if error is not None:
            # A subscriber that fails once has missed an event, and would go on with a gap.
            self._end()
        elif self._in_flight == WINDOW - 1:
            self._deliver()

    def _break(self, _error: Exception) -> None:
        self._end()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._has_answered.set()
            if self._large is not None:
                self._large.cancel()
            self._subscription.close()
            self._on_event.dispose()


def _ignore(_error: Exception | None) -> None:
    """Nothing follows, whatever a subscriber says to its last event."""
