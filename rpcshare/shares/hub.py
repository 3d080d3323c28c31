"""Live updates of one share to its subscribers on this node.

An event is made once and handed to everybody. A subscriber takes events at its own pace; what waits
for it is bounded: past the limits, waiting syncs become one that holds the newest value of each item,
which is never larger than the share.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self

from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.errors import ShareError
from rpcshare.shares.events import Deleted, Event, Snapshot, Sync
from rpcshare.shares.state import Content, ShareState

__all__ = ["RECENT_SYNCS", "Hub", "Subscription"]

RECENT_SYNCS = 512
"""How many syncs are remembered for subscribers that come back."""
_RECENT_SIZE = 2**20  # bytes
_BACKLOG_SYNCS = 64
_BACKLOG_SIZE = 256 * 1024  # bytes


class Subscription(AsyncIterator[Event]):
    """The events of one share for one consumer, from a first state on, without gap or repeat.

    The iteration ends behind a :class:`~rpcshare.shares.events.Deleted`, and with :meth:`aclose`; it
    raises a ShareError when its reader may not read the share any longer. A snapshot that is not the
    first event replaces all before it.
    """

    def __init__(self, hub: "Hub", first: list[Event], reader: Caller = ANONYMOUS) -> None:
        self.reader = reader
        self._hub = hub
        self._events = deque(first)
        self._size = sum(_size(event) for event in first)  # bytes of the syncs in _events
        self._merged: Content | None = None  # syncs behind _events, merged
        self._merged_count = 0  # the syncCount of the last of them
        self._last: Deleted | None = None  # behind all others
        self._ended = False
        self._error: ShareError | None = None  # why it has ended, if not by itself
        self._on_end: list[Callable[[], None]] = []
        self._wake_up: asyncio.Future[None] | None = None  # of a consumer that waits
        self._ready: Callable[[], None] | None = None  # of a consumer that is called

    async def __anext__(self) -> Event:
        if self._wake_up is not None:
            raise RuntimeError("a subscription has one consumer")
        while (event := self.take()) is None:
            if self._ended:
                error, self._error = self._error, None
                raise error or StopAsyncIteration
            self._wake_up = asyncio.get_running_loop().create_future()
            try:
                await self._wake_up
            finally:
                self._wake_up = None
        return event

    @property
    def share_id(self) -> str:
        """Whose events these are."""
        return self._hub.share_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscription now: what waits is dropped, and a waiting consumer let go."""
        self.close()

    def close(self) -> None:
        """End the subscription, as :meth:`aclose` does."""
        self._drop_waiting()
        self.end()

    def fail(self, error: ShareError) -> None:
        """Let the iteration raise ``error`` now: what waits is dropped."""
        self._drop_waiting()
        self._error = error
        self.end()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once there will be no more events."""
        self._on_end.append(callback)

    def _drop_waiting(self) -> None:
        self._hub.drop(self)
        self._events.clear()
        self._merged = self._last = None

    def call_when_ready(self, ready: Callable[[], None]) -> None:
        """Call ``ready`` each time that there may be more to :meth:`take`, and at the end.

        For a consumer that never waits, and so costs no task. It is called where the event is made: it
        raises nothing, and is quick.
        """
        self._ready = ready

    @property
    def is_over(self) -> bool:
        """Whether nothing will come behind what can be taken now."""
        return self._ended

    @property
    def error(self) -> ShareError | None:
        """Why it is over, if not by itself."""
        return self._error

    def take(self) -> Event | None:
        """Return the next event if there is one."""
        if self._events:
            event = self._events.popleft()
            self._size -= _size(event)
            return event
        if self._merged is not None:
            merged, self._merged = self._merged, None
            return Sync(self._hub.share_id, self._merged_count, merged.items())
        last, self._last = self._last, None
        return last

    def push_sync(self, event: Sync) -> None:
        """Add a sync to what waits. For the hub, like all that follows."""
        if self._ended:
            return
        if self._merged is None:
            self._events.append(event)
            self._size += event.size
            if len(self._events) > _BACKLOG_SYNCS or self._size > _BACKLOG_SIZE:
                self._merge_waiting()
        else:
            self._merged.apply(event.items)
            self._merged_count = event.sync_count
        self._wake()

    def push_snapshot(self, event: Snapshot) -> None:
        """Begin anew from ``event``."""
        self._events.clear()
        self._events.append(event)
        self._size = 0
        self._merged = None
        self._wake()

    def push_deleted(self, event: Deleted) -> None:
        """Add the last event."""
        self._last = event
        self.end()

    def end(self) -> None:
        """Let the iteration end behind what waits."""
        self._ended = True
        self._wake()
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            callback()

    def _merge_waiting(self) -> None:
        syncs = [event for event in self._events if isinstance(event, Sync)]
        if len(syncs) < 2:  # one alone has nothing to be merged with
            return
        self._merged = Content()
        for sync in syncs:
            self._merged.apply(sync.items)
        self._merged_count = syncs[-1].sync_count
        self._events = deque(event for event in self._events if not isinstance(event, Sync))
        self._size = 0

    def _wake(self) -> None:
        if self._ready is not None:
            self._ready()
        elif self._wake_up is not None and not self._wake_up.done():
            self._wake_up.set_result(None)


def _size(event: Event) -> int:
    return event.size if isinstance(event, Sync) else 0


class Hub:
    """Hands the events of one share to its subscriptions, and remembers the newest syncs."""

    def __init__(self, share_id: str) -> None:
        self.share_id = share_id
        self._subscriptions: dict[Subscription, None] = {}  # in the order in which they began
        self._recent: deque[Sync] = deque()  # the newest syncs of the share, without a gap
        self._recent_size = 0  # bytes
        self._snapshot: weakref.ref[Snapshot] | None = None  # for who subscribes at the same time

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    @property
    def size(self) -> int:
        """Bytes of the syncs that are remembered."""
        return self._recent_size

    def subscribe(
        self, state: ShareState, from_sync_count: int | None, reader: Caller = ANONYMOUS
    ) -> Subscription:
        """Return a subscription that begins with the share as it is now.

        Args:
            state: the share.
            from_sync_count: the last sync that the subscriber has seen. If those behind it are still
                remembered, they come instead of a snapshot.
            reader: who gets them.
        """
        first = self._since(state.sync_count, from_sync_count)
        subscription = Subscription(self, [self._snapshot_of(state)] if first is None else first, reader)
        self._subscriptions[subscription] = None
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Forget ``subscription``; one that is not there is no error."""
        self._subscriptions.pop(subscription, None)

    def review(self, refusal: Callable[[Caller], ShareError | None]) -> None:
        """End the subscriptions of those for whom ``refusal`` returns why."""
        for subscription in list(self._subscriptions):
            if (error := refusal(subscription.reader)) is not None:
                subscription.fail(error)

    def sync(self, event: Sync) -> None:
        """Tell of the next sync, which is durable."""
        self._remember(event)
        for subscription in tuple(self._subscriptions):  # some may end because of it
            subscription.push_sync(event)

    def restart(self, state: ShareState, recent: Iterable[Sync] = ()) -> None:
        """Tell that the share is ``state`` now, when the syncs in between may not all be known.

        Args:
            state: the share.
            recent: the last syncs that led to it, without a gap.
        """
        self._recent.clear()
        self._recent_size = 0
        for event in recent:
            self._remember(event)
        if self._subscriptions:
            snapshot = self._snapshot_of(state)
            for subscription in tuple(self._subscriptions):
                subscription.push_snapshot(snapshot)

    def delete(self) -> None:
        """Tell that the share is gone."""
        event = Deleted(self.share_id)
        for subscription in tuple(self._subscriptions):
            subscription.push_deleted(event)
        self._subscriptions.clear()

    def close(self) -> None:
        """End all subscriptions, the share being as it was."""
        for subscription in tuple(self._subscriptions):
            subscription.end()
        self._subscriptions.clear()

    def _remember(self, event: Sync) -> None:
        self._recent.append(event)
        self._recent_size += event.size
        while len(self._recent) > RECENT_SYNCS or self._recent_size > _RECENT_SIZE:
            self._recent_size -= self._recent.popleft().size

    def _since(self, sync_count: int, seen: int | None) -> list[Event] | None:
        if seen is None or seen > sync_count or seen < sync_count - len(self._recent):
            return None
        return [event for event in self._recent if event.sync_count > seen]

    def _snapshot_of(self, state: ShareState) -> Snapshot:
        held = self._snapshot() if self._snapshot is not None else None
        if held is not None and held.sync_count == state.sync_count:
            return held
        event = Snapshot(self.share_id, state.sync_count, state.items())
        self._snapshot = weakref.ref(event)
        return event
