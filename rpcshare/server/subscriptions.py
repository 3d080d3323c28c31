"""Events of a share as calls to a subscriber's function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from weakref import WeakValueDictionary

from rpcshare.auth.caller import Caller
from rpcshare.auth.rate_limits import network_of
from rpcshare.rpc import Codec, RpcError, RpcTarget, Stub, notify, rpc_method, when_room
from rpcshare.rpc.waiting import Signal
from rpcshare.server.rpc_results import LARGE_EVENTS, Room, preencoded, preencoded_large
from rpcshare.shares.event_source import EventSource
from rpcshare.shares.events import Event, Refused, Snapshot, Sync
from rpcshare.structured_log import structlog

__all__ = ["CallbackSubscription", "event_stream"]

logger = structlog.get_logger("rpcshare.server")

Carried = Callable[[Event], object]
"""Returns an event as a value of the wire."""

# How many events may be on their way to a subscriber. Enough to fill a link of 100 ms at 300 syncs a second;
# what comes on top waits, and is merged, in the subscription (PROTOCOL.md, "Subscriptions").
WINDOW = 32

# By who is to pay for it: events are on their way for as long as their reader likes.
_rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()


def _room_of(caller: Caller) -> Room:
    """Return the room that all subscriptions of a caller share."""
    owner = caller.subject or network_of(caller.address)
    room = _rooms.get(owner)
    if room is None:
        room = _rooms[owner] = Room(LARGE_EVENTS)
    return room


def _size(event: Event) -> int:
    return event.size if isinstance(event, Snapshot | Sync) else 0


async def event_stream(
    subscribe: Callable[[], Awaitable[EventSource]],
    caller: Caller,
    codec: Codec,
    carried: Carried = preencoded,
) -> AsyncIterator[object]:
    """Yield events, subscribing when the first is asked for."""
    room = _room_of(caller)
    async with await subscribe() as events:
        async for event in events:
            if not event.is_large:
                yield carried(event)
                continue
            async with room.held(_size(event)):
                yield await preencoded_large(event, codec)


class CallbackSubscription(RpcTarget):
    """What ``subscribe`` returns. Disposing of it unsubscribes, and so does losing the connection."""

    def __init__(
        self,
        subscription: EventSource,
        on_event: Stub,
        caller: Caller,
        codec: Codec,
        carried: Carried = preencoded,
    ) -> None:
        self._codec = codec
        self._carried = carried
        self._room = _room_of(caller)
        self._subscription = subscription
        self._on_event = on_event.dup()
        self._in_flight = 0
        self._waits_for_room = False
        self._is_over = False
        self._large: asyncio.Task[None] | None = None  # sends an event that is large
        self._has_answered = Signal()
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
            self._subscription.call_when_ready(self._deliver, self._deliver_directly)
            self._deliver()

    def _deliver(self) -> None:
        """Send what there is, as far as there is room for it on the way."""
        subscription = self._subscription
        while (
            subscription.has_more and not self._is_over and self._in_flight < WINDOW and self._large is None
        ):
            if self._waits_for_room or not when_room(self._on_event, self._go_on):
                self._waits_for_room = not self._is_over
                return
            event = subscription.take()
            if event is not None:
                if event.is_large:
                    self._large = asyncio.create_task(self._send_large(event))
                    return
                self._in_flight += 1
                self._send(event, self._answered)
                continue
            if subscription.is_over:
                if (error := subscription.error) is not None:
                    # A call is all that a subscriber hears, so its last one says why there will be no other.
                    self._send(Refused.because(error, subscription.share_id), _ignore)
                self._end()
            return

    def _deliver_directly(self, event: Sync) -> bool:
        """Send what nothing waits before; return whether that has been done."""
        if (
            self._in_flight >= WINDOW
            or self._large is not None
            or self._waits_for_room
            or self._is_over
            or event.is_large
        ):
            return False
        if not when_room(self._on_event, self._go_on):
            self._waits_for_room = True
            return False
        self._in_flight += 1
        self._send(event, self._answered)
        return True

    def _go_on(self) -> None:
        self._waits_for_room = False
        self._deliver()

    def _send(self, event: Event, answered: Callable[[Exception | None], None]) -> None:
        try:
            notify(self._on_event, (self._carried(event),), answered)
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
