"""Events of a share as calls to a subscriber's function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog

from rpcshare.auth.caller import Caller
from rpcshare.errors import ShareError
from rpcshare.rpc import Preencoded, RpcTarget, Stub, notify, rpc_method
from rpcshare.shares.events import Event, Refused
from rpcshare.shares.hub import Subscription
from rpcshare.shares.service import ShareService

__all__ = ["CallbackSubscription", "event_stream", "preencoded"]

logger = structlog.get_logger("rpcshare.server")

# How many events may be on their way to a subscriber. Enough to fill a link of 100 ms at 300 syncs a second;
# what comes on top waits, and is merged, in the subscription (PROTOCOL.md, "Subscriptions").
WINDOW = 32


def preencoded(event: Event) -> Preencoded:
    """Return the event as the wire carries it, encoded once for however many subscribers."""
    forms = event.__dict__
    form = forms.get("preencoded")
    if not isinstance(form, Preencoded):
        form = forms["preencoded"] = Preencoded(event.value)
    return form


async def event_stream(
    service: ShareService, caller: Caller, share_id: str, from_sync_count: int | None
) -> AsyncIterator[Preencoded]:
    """Yield the events of a share, subscribing when the first is asked for."""
    async with await service.subscribe(caller, share_id, from_sync_count) as events:
        async for event in events:
            yield preencoded(event)


class CallbackSubscription(RpcTarget):
    """What ``subscribe`` returns. Disposing of it unsubscribes, and so does losing the connection."""

    def __init__(self, subscription: Subscription, on_event: Stub) -> None:
        self._subscription = subscription
        self._on_event = on_event.dup()
        self._in_flight = 0
        self._room = asyncio.Event()
        self._has_begun = False
        self._is_over = False
        self._task = asyncio.get_running_loop().create_task(self._deliver())
        self._on_event.on_broken(self._break)

    @rpc_method("unsubscribe()")
    def unsubscribe(self) -> None:
        """Send no more events."""
        self._end()

    def dispose(self) -> None:
        """The subscriber has let go of the subscription."""
        self._end()

    async def _deliver(self) -> None:
        self._has_begun = True
        try:
            async with self._subscription as events:
                while not self._is_over:
                    if self._in_flight >= WINDOW:
                        self._room.clear()
                        await self._room.wait()
                    elif (event := await anext(events, None)) is None:
                        return
                    else:
                        self._in_flight += 1
                        notify(self._on_event, (preencoded(event),), self._answered)
        except ShareError as exc:
            # A call is all that a subscriber hears, so its last one says why there will be no other.
            last = Refused.because(exc, self._subscription.share_id)
            notify(self._on_event, (preencoded(last),), _ignore)
        finally:
            self._on_event.dispose()

    def _answered(self, error: Exception | None) -> None:
        self._in_flight -= 1
        if error is not None:
            # A subscriber that fails once has missed an event, and would go on with a gap.
            self._end()
        else:
            self._room.set()

    def _break(self, _error: Exception) -> None:
        self._end()

    def _end(self) -> None:
        self._is_over = True
        # Cancelled before its first step a task runs none, not even what lets go of the events.
        if self._has_begun:
            self._task.cancel()


def _ignore(_error: Exception | None) -> None:
    """Nothing follows, whatever a subscriber says to its last event."""
