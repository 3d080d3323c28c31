"""Keeps the search index behind the store: what is synced is indexed a moment later, and nobody waits for it.

What this node writes, it hears of at once, item by item. All else is found by comparing the keys of the
store with what the index knows: what other nodes wrote, what was written as a server was killed, what an
older copy of the database does not have. That is done at the start, after a failure of the database, and now
and then.

Any number of processes may do this at once: what they write is the same.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rpcshare.database import DatabaseError
from rpcshare.shares.context import WatchedShare
from rpcshare.shares.reindexing import COMPLETE, in_groups, share_places
from rpcshare.shares.search_texts import Items, reverted_to, texts_of
from rpcshare.shares.share_indexing import ReadShare, indexed_share, put_whole, read_share
from rpcshare.shares.syncdata import Item, Kind
from rpcshare.storage import ObjectStore, StoreError

if TYPE_CHECKING:
    from rpcshare.shares.search_index import SearchIndex

__all__ = ["Projection"]

logger = logging.getLogger(__name__)

_SWEEP = "sweep"
_TICK = 0.25  # seconds between looks at what is to be indexed
_RESTS_AFTER = 0.3  # seconds: what has not changed for so long
_WAITS_AT_MOST = 5.0  # seconds, for an item that never rests
_AT_ONCE = 1000  # items of a share
_MAX_ITEMS = 20_000  # that are remembered of a share; of more, all are looked at
_MAX_SHARES = 10_000  # that are remembered; of more, all are compared
_ATTEMPTS = 3  # at a share that other processes index, too
_LEASE = 60_000  # ms
_RETRY_AT_FIRST, _RETRY_AT_LAST = 1.0, 30.0  # seconds
_SWEEP_SHARE = 20  # of the time, at least so many times as long as it takes passes without a comparison
_KNOWN_DIFFS = 1000  # shares


class _Touched(NamedTuple):
    entry: int
    """The first that has changed it."""
    first_at: float
    last_at: float


class _Pending:
    """What of a share is to be indexed."""

    __slots__ = ("base", "items")

    def __init__(self, base: int, items: dict[tuple[Kind, bytes], _Touched] | None) -> None:
        self.base = base  # the entry of which all must be in the index
        self.items = items  # None: all


class Projection:
    """Indexes the shares of a store. Needs a running event loop. A sync hears of no failure of it."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Callable[[], int],
        opened: Callable[[], Awaitable["SearchIndex"]],
        *,
        find_open: Callable[[str], WatchedShare | None] = lambda _share_id: None,
        compare_every: float = 300.0,
    ) -> None:
        """Index the shares of ``store``.

        Args:
            store: where they are.
            clock: milliseconds since the epoch.
            opened: opens the index, when it is needed for the first time; may raise DatabaseError.
            find_open: returns a share that is in memory.
            compare_every: seconds between comparisons of the store with the index.
        """
        self._store = store
        self._clock = clock
        self._open_index = opened
        self._find_open = find_open
        self._compare_every = compare_every
        self._index: SearchIndex | None = None
        self._opening = asyncio.Lock()
        self._holder = secrets.token_hex(8)
        self._pending: dict[str, _Pending] = {}
        self._diffs: OrderedDict[str, tuple[str, int]] = OrderedDict()  # generation, and how many are indexed
        self._is_news = asyncio.Event()
        self._compare_at = 0.0
        self._worker: asyncio.Task[None] | None = None
        self._is_away = False
        self._working = 0  # pieces of work under way
        self._is_closed = False

    # What is heard of

    def changed(self, share: WatchedShare, items: Iterable[Item] | None, *, by_this_node: bool) -> None:
        """Hear that an entry with ``items`` has been added to an open share; None: any may have changed."""
        pending = self._pending.get(share.share_id)
        if pending is None:
            if not by_this_node and items is not None:
                return  # who has written it indexes it
            if len(self._pending) >= _MAX_SHARES:
                self._pending.clear()
                self._compare_at = 0.0
            entry = share.entry
            pending = self._pending[share.share_id] = _Pending(entry - 1, {} if items is not None else None)
            self.start()
        if items is None:
            pending.items = None
        elif pending.items is not None:
            self._remember(pending, share.entry, items)

    def _remember(self, pending: _Pending, entry: int, items: Iterable[Item]) -> None:
        known, now = pending.items, monotonic()
        if known is None:
            return
        if self._is_away:  # for how long, nobody knows: the share is looked at as a whole then
            pending.items = None
            return
        for item in items:
            if item.kind is Kind.MODEL:
                continue
            values = item.values if item.kind in (Kind.MESSAGE, Kind.PART) else item.values[:1]
            if len(known) + len(values) > _MAX_ITEMS:
                # Hundreds of thousands in one sync would take their time here, before it is answered.
                pending.items = None
                return
            for key, _ in values:
                before = known.get((item.kind, key))
                first = (entry, now) if before is None else before[:2]
                known[item.kind, key] = _Touched(*first, now)

    def settings_changed(self, share: WatchedShare) -> None:
        """Hear that the head of an open share is another."""
        if share.share_id not in self._pending:
            self._pending[share.share_id] = _Pending(share.entry, {})
        self.start()

    def touch(self, share_id: str) -> None:
        """Hear that a share may be another than the index knows, or gone."""
        self._pending[share_id] = _Pending(0, None)
        self.start()

    def start(self) -> None:
        """Begin, in the background, unless that has been done."""
        self._is_news.set()
        if self._worker is None and not self._is_closed:
            self._worker = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Index what waits, if that does not take long, and end."""
        self._is_closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        with suppress(DatabaseError, StoreError, TimeoutError):
            async with asyncio.timeout(2):
                if self._index is not None and not self._is_away:
                    await self._index_pending(is_last=True)
        if self._index is not None:
            await self._index.database.close()

    async def index(self) -> "SearchIndex":
        """Return the index, opened if it is not. Raises DatabaseError."""
        async with self._opening:
            if self._index is not None and await self._index.database.is_replaced():
                await self._index.database.close()
                self._index = None
                self._diffs.clear()
                self._compare_at = 0.0
                logger.warning("The file of the database is another one, or gone: it is opened again")
            if self._index is None:
                self._index = await self._open_index()
            return self._index

    async def is_complete(self) -> bool:
        """Whether all shares have been indexed once. Raises DatabaseError."""
        return bool(await (await self.index()).progress_of(COMPLETE))

    # What is done

    async def _run(self) -> None:
        retry = _RETRY_AT_FIRST
        while True:
            try:
                await self._index_pending()
                if monotonic() >= self._compare_at:
                    self._working += 1
                    try:
                        await self._compare_all()
                    finally:
                        self._working -= 1
            except (DatabaseError, StoreError) as exc:
                if not self._is_away:
                    logger.warning("Search does not hear of what is shared, until this is mended: %s", exc)
                self._is_away = True
                self._compare_at = 0.0
                await asyncio.sleep(retry)
                retry = min(2 * retry, _RETRY_AT_LAST)
                continue
            if self._is_away:
                logger.warning("Search is up to date again")
            self._is_away, retry = False, _RETRY_AT_FIRST
            if self._pending:
                await asyncio.sleep(_TICK)
                continue
            self._is_news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._compare_at - monotonic(), _TICK)):
                    await self._is_news.wait()
                await asyncio.sleep(_TICK)

    @property
    def is_up_to_date(self) -> bool:
        """Whether all that has been heard of is indexed, and the store has been compared with that."""
        return not (self._pending or self._working or self._is_away) and self._compare_at > 0

    async def _index_pending(self, *, is_last: bool = False) -> None:
        self._working += 1
        try:
            await self._index_all_pending(is_last=is_last)
        finally:
            self._working -= 1

    async def _index_all_pending(self, *, is_last: bool) -> None:
        for share_id in list(self._pending):
            pending = self._pending.pop(share_id, None)
            if pending is None:
                continue
            try:
                left = await self._index_share(share_id, pending, is_last=is_last)
            except StoreError as exc:
                # One share that cannot be read must not keep the others from being found.
                logger.warning("Share %s is not indexed: %s", share_id, exc)
            except BaseException:
                self._pending[share_id] = _Pending(0, None)
                raise
            else:
                if left is not None:
                    self._put_back(share_id, left)

    def _put_back(self, share_id: str, left: _Pending) -> None:
        newer = self._pending.get(share_id)
        if newer is not None and newer.items is not None and left.items is not None:
            left.items = {
                key: touched if (old := left.items.get(key)) is None else _Touched(*old[:2], touched.last_at)
                for key, touched in (left.items | newer.items).items()
            }
        if newer is None or newer.items is not None:
            self._pending[share_id] = left

    async def _index_share(self, share_id: str, pending: _Pending, *, is_last: bool) -> _Pending | None:
        """Index what has changed; return what has yet to rest."""
        share = self._find_open(share_id)
        if pending.items is None or share is None or share.is_ended or share.head_etag is None:
            await self._index_whole(share_id, share)
            return None
        resting, restless = _parted(pending.items, is_last=is_last)
        if not resting and restless:
            return pending
        base = min((touched.entry for touched in restless.values()), default=share.entry + 1) - 1
        if not await self._index_some(share, list(resting), pending.base, base):
            await self._index_whole(share_id, share)
            return None
        return _Pending(base, restless) if restless else None

    async def _index_some(
        self, share: WatchedShare, keys: list[tuple[Kind, bytes]], since: int, until: int
    ) -> bool:
        items = Items.of(share.state, keys)
        names = [_item_name(kind, key) for kind, key in keys]
        if items.diffs:
            known = self._diffs.get(share.share_id)
            first = known[1] if known is not None and known[0] == share.head.generation else 0
            if not first:
                names += [f"diff:{number}" for number in range(len(items.diffs))]
            items = msgspec.structs.replace(items, diffs=items.diffs[first:], first_diff=first)
        row = indexed_share(share.head, share.head_etag or "", share.share_id, share.state, until)
        reverted = reverted_to(share.state.content.session)
        index = await self.index()
        is_done = await index.put(row, texts_of(items, reverted), changed=names, since=since)
        if is_done and items.diffs:
            self._note_diffs(share.share_id, row.generation, items.first_diff + len(items.diffs))
        return is_done

    async def _index_whole(self, share_id: str, share: WatchedShare | None = None) -> None:
        index = await self.index()
        for _ in range(_ATTEMPTS):
            before = (await index.known([share_id])).get(share_id)
            read: ReadShare | None = None
            if share is not None and not share.is_ended and share.head_etag is not None:
                read = ReadShare(share.head, share.head_etag, share.state, share.entry)
            if read is None or (
                before is not None
                and (before.generation, 1) == (read.head.generation, before.entry > read.entry)
            ):
                read = await read_share(self._store, share_id)
            if read is None:
                if before is not None:
                    await index.forget(share_id)
                return
            if await put_whole(index, share_id, read, before):
                self._diffs.pop(share_id, None)
                return
        self.touch(share_id)  # other processes are at it

    def _note_diffs(self, share_id: str, generation: str, count: int) -> None:
        self._diffs[share_id] = generation, count
        self._diffs.move_to_end(share_id)
        if len(self._diffs) > _KNOWN_DIFFS:
            self._diffs.popitem(last=False)

    async def _compare_all(self) -> None:
        """Index each share of which the store has another state than the index, and no node tells of it."""
        began_at = monotonic()
        index = await self.index()
        self._compare_at = began_at + self._compare_every  # unless this fails
        async for some in in_groups(share_places(self._store)):
            now = self._clock()
            if not await index.lease(_SWEEP, self._holder, now, now + _LEASE):
                # Another process does it, or has been killed as it did.
                self._compare_at = monotonic() + min(self._compare_every, _LEASE / 10_000)
                return
            known = await index.known([place.share_id for place in some])
            for place in some:
                if place.share_id in self._pending or place.is_of(known.get(place.share_id)):
                    continue
                try:
                    await self._index_whole(place.share_id, self._find_open(place.share_id))
                except StoreError as exc:
                    logger.warning("Share %s is not indexed: %s", place.share_id, exc)
                if self._pending:
                    await self._index_pending()
        if not await index.progress_of(COMPLETE):
            await index.note_progress(COMPLETE, "yes")
        await index.release(_SWEEP, self._holder)
        self._compare_at = monotonic() + max(self._compare_every, _SWEEP_SHARE * (monotonic() - began_at))


def _parted(
    items: dict[tuple[Kind, bytes], _Touched], *, is_last: bool
) -> tuple[dict[tuple[Kind, bytes], _Touched], dict[tuple[Kind, bytes], _Touched]]:
    """Return the items that rest, at most so many as are indexed at once, and the others."""
    now = monotonic()
    resting: dict[tuple[Kind, bytes], _Touched] = {}
    restless: dict[tuple[Kind, bytes], _Touched] = {}
    for key, touched in items.items():
        rests = is_last or now - touched.last_at >= _RESTS_AFTER or now - touched.first_at >= _WAITS_AT_MOST
        (resting if rests and (is_last or len(resting) < _AT_ONCE) else restless)[key] = touched
    return resting, restless


def _item_name(kind: Kind, key: bytes) -> str:
    return "session" if kind is Kind.SESSION else f"{kind}:{key.decode()}"
