"""Live updates of one share to its subscribers on this node.

An event is made once and handed to everybody. A subscriber takes events at its own pace; what waits
for it is bounded: past the limits, nothing waits but the number of the last sync that it has. Once it
takes again, it gets one sync that holds the newest value of each item that has changed since, which is
never larger than the share. What has changed is noted once, for however many subscribers.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self
from weakref import WeakValueDictionary

from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.errors import ShareError
from rpcshare.shares.content import Content
from rpcshare.shares.events import Deleted, Event, Snapshot, Sync
from rpcshare.shares.old_versions import OldVersions
from rpcshare.shares.outgoing import Outgoing
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import Item, Kind

__all__ = ["RECENT_SYNCS", "RecentSyncs", "Subscription", "Subscriptions"]

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

    def __init__(self, hub: "Subscriptions", first: list[Event], reader: Caller = ANONYMOUS) -> None:
        self.reader = reader
        self._hub = hub
        self._events = list(first)  # few; a deque would take 760 bytes while there is none
        self._size = sum(_size(event) for event in first)  # bytes of the syncs in _events
        self._lag: _Lag | None = None  # of a backlog that is merged, behind _events
        self._last: Deleted | None = None  # behind all others
        self._ended = False
        self._error: ShareError | None = None  # why it has ended, if not by itself
        self._on_end: list[Callable[[], None]] = []
        self._wake_up: asyncio.Future[None] | None = None  # of a consumer that waits
        self._ready: Callable[[], None] | None = None  # of a consumer that is called
        self._directly: Callable[[Sync], bool] | None = None  # of the same
        self._outgoing: Outgoing | None = None  # an event that is being sent in parts
        self._give_up: Callable[[], None] | None = None  # of its consumer

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

    def on_give_up(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called if the consumer of :meth:`parts` holds more than can be kept for it."""
        self._give_up = callback

    def parts(self, event: Snapshot | Sync) -> Generator[bytes]:
        """Yield the text of ``event``, which has just been taken, in parts.

        For who is slow, the values in it may become newer than the event is. What follows it is newer still.
        """
        outgoing = self._outgoing = Outgoing(
            event,
            self._hub.changes.content,
            self._hub.old_versions,
            merge=self._merge_waiting,
            give_up=self._cannot_be_kept,
        )
        del event  # which is held by that alone
        try:
            yield from outgoing.parts()
        finally:
            outgoing.end()

    def _cannot_be_kept(self) -> None:
        if self._give_up is not None:
            self._give_up()

    def _drop_waiting(self) -> None:
        if self._outgoing is not None:
            self._outgoing.end()
            self._outgoing = None
        self._hub.drop(self)
        self._events.clear()
        self._last = None
        self._catch_up()

    def call_when_ready(
        self, ready: Callable[[], None], directly: Callable[[Sync], bool] | None = None
    ) -> None:
        """Call ``ready`` each time that there may be more to :meth:`take`, and at the end.

        For a consumer that never waits, and so costs no task. It is called where the event is made: it
        raises nothing, and is quick.

        Args:
            ready: is called.
            directly: is asked to take a sync, where nothing waits before it; returns whether it has. So a
                consumer that keeps up, as nearly all do, costs no queue either.
        """
        self._ready = ready
        self._directly = directly

    @property
    def begins_anew(self) -> bool:
        """Whether a snapshot is next, whatever its consumer has seen before."""
        return bool(self._events) and isinstance(self._events[0], Snapshot)

    @property
    def has_more(self) -> bool:
        """Whether there is an event to be taken, or the end to be noticed."""
        return bool(self._events) or self._ended or self._lag is not None

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
            event = self._events.pop(0)
            self._size -= _size(event)
            return event
        if self._lag is not None:
            merged = self._hub.changes.since(self._lag)
            self._catch_up()
            return merged
        last, self._last = self._last, None
        return last

    def push_sync(self, event: Sync) -> None:
        """Add a sync to what waits. For the hub, like all that follows."""
        if self._ended:
            return
        directly = self._directly
        if directly is not None and not self._events and self._lag is None and directly(event):
            return
        if self._lag is None:
            self._events.append(event)
            self._size += event.size
            if len(self._events) > _BACKLOG_SYNCS or self._size > _BACKLOG_SIZE:
                self._merge_waiting()
        self._wake()

    def push_snapshot(self, event: Snapshot) -> None:
        """Begin anew from ``event``."""
        self._events.clear()
        self._events.append(event)
        self._size = 0
        self._catch_up()
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
        if self._lag is not None:
            return
        syncs = [event for event in self._events if isinstance(event, Sync)]
        if len(syncs) < 2:  # one alone has nothing to be merged with
            return
        self._lag = self._hub.changes.begin(syncs)
        self._events = [event for event in self._events if not isinstance(event, Sync)]
        self._size = 0

    def _catch_up(self) -> None:
        if self._lag is not None:
            self._hub.changes.end()
            self._lag = None

    def _wake(self) -> None:
        if self._ready is not None:
            self._ready()
        elif self._wake_up is not None and not self._wake_up.done():
            self._wake_up.set_result(None)


def _size(event: Event) -> int:
    return event.size if isinstance(event, Sync) else 0


class _Lag(NamedTuple):
    """Where a merged backlog begins."""

    sync_count: int
    """The last sync that the subscriber has."""
    diffs: int
    """How many diffs it has."""


class _Changes:
    """What has changed in a share, for as long as there are subscribers that lag behind."""

    def __init__(self, share_id: str) -> None:
        self._share_id = share_id
        self._content = Content()
        self._sync_count = 0
        self._session = 0  # the last sync that changed it
        self._items: dict[Kind, dict[bytes, int]] = {}  # the same by key, in first-seen order
        self._lagging = 0  # subscribers
        self._since = 0  # the sync behind which all is noted, while there are any
        # For those who lag behind by the same, which may be many.
        self._merged: WeakValueDictionary[tuple[_Lag, int], Sync] = WeakValueDictionary()

    @property
    def content(self) -> Content:
        """The newest values."""
        return self._content

    def follow(self, state: ShareState) -> None:
        """Have the values from ``state`` from now on."""
        self._content = state.content
        self._sync_count = state.sync_count

    def begin(self, syncs: list[Sync]) -> _Lag:
        """Return what stands for ``syncs``, the last without a gap; to be followed by one :meth:`end`."""
        self._lagging += 1
        known = self._content.diffs
        lag = _Lag(syncs[0].sync_count - 1, len(known) - sum(map(_diffs_of, syncs)))
        if self._lagging == 1 or lag.sync_count < self._since:
            self._since = lag.sync_count
            for sync in syncs:
                self.note(sync)
        return lag

    def end(self) -> None:
        """Forget one lag; with the last of them, what has changed."""
        self._lagging -= 1
        if not self._lagging:
            self._items = {}
            self._session = 0

    def note(self, sync: Sync) -> None:
        """Take note of a sync that the share has. Again is no error, nor is one out of order."""
        self._sync_count = max(self._sync_count, sync.sync_count)
        if not self._lagging:
            return
        number = sync.sync_count
        for item in sync.items:
            if item.kind is Kind.SESSION:
                self._session = max(self._session, number)
            elif item.kind is not Kind.DIFF:
                changed = self._items.setdefault(item.kind, {})
                for key, _ in item.values:
                    if changed.get(key, 0) < number:
                        changed[key] = number

    def since(self, lag: _Lag) -> Sync:
        """Return the newest value of all that has changed since, as one sync."""
        made = self._merged.get((lag, self._sync_count))
        if made is None:
            items = tuple(self._items_since(lag))
            made = self._merged[lag, self._sync_count] = Sync(self._share_id, self._sync_count, items)
        return made

    def _items_since(self, lag: _Lag) -> Iterator[Item]:
        content = self._content
        if self._session > lag.sync_count and content.session is not None:
            yield Item(Kind.SESSION, ((b"", content.session),))
        for kind in (Kind.MESSAGE, Kind.PART, Kind.DIFF, Kind.MODEL):
            if kind is Kind.DIFF:
                values = content.diffs.values(lag.diffs)
            else:
                held, changed = content.by_key(kind), self._items.get(kind, {})
                values = tuple(held[key] for key, count in changed.items() if count > lag.sync_count)
            if values:
                yield Item(kind, values)


def _diffs_of(sync: Sync) -> int:
    return sum(len(item.values) for item in sync.items if item.kind is Kind.DIFF)


class RecentSyncs:
    """The newest syncs of a share, without a gap: so many of them, and so many bytes, are remembered."""

    def __init__(self) -> None:
        self._events: deque[Sync] = deque()
        self.size = 0
        """Bytes."""

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Sync]:
        return iter(self._events)

    def add(self, event: Sync) -> None:
        """Remember the next sync, instead of the oldest."""
        self._events.append(event)
        self.size += event.size
        while len(self._events) > RECENT_SYNCS or self.size > _RECENT_SIZE:
            self.size -= self._events.popleft().size


class Subscriptions:
    """Hands the events of one share to its subscriptions, and remembers the newest syncs."""

    def __init__(self, share_id: str, old_versions: OldVersions | None = None) -> None:
        self.share_id = share_id
        self.old_versions = old_versions or OldVersions()
        """What slow readers hold, of this share and others."""
        self._subscriptions: dict[Subscription, None] = {}  # in the order in which they began
        self._recent = RecentSyncs()
        self.changes = _Changes(share_id)
        """For subscriptions that lag behind."""
        self._snapshot: weakref.ref[Snapshot] | None = None  # for who subscribes at the same time

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    @property
    def size(self) -> int:
        """Bytes of the syncs that are remembered."""
        return self._recent.size

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
        self.changes.follow(state)
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
        self._recent.add(event)
        self.changes.note(event)
        for subscription in tuple(self._subscriptions):  # some may end because of it
            subscription.push_sync(event)
        self.old_versions.review()

    def restart(self, state: ShareState, recent: Iterable[Sync] = ()) -> None:
        """Tell that the share is ``state`` now, when the syncs in between may not all be known.

        Args:
            state: the share.
            recent: the last syncs that led to it, without a gap.
        """
        self._recent = RecentSyncs()
        for event in recent:
            self._recent.add(event)
        self.changes.follow(state)
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
