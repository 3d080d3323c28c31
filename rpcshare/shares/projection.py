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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from rpcshare.database import DatabaseError, InvalidValueError
from rpcshare.shares.catalogue_writer import CatalogueWriter
from rpcshare.shares.context import WatchedShare
from rpcshare.shares.pending_items import PendingItems
from rpcshare.shares.reindexing import COMPARED_AT_ONCE, COMPLETE, in_groups, share_places
from rpcshare.shares.share_indexing import ChangedItems, ReadShare, put_whole, read_share
from rpcshare.shares.syncdata import Item
from rpcshare.storage import ObjectStore, StoreError

if TYPE_CHECKING:
    from rpcshare.shares.search_index import IndexedShare, SearchIndex

__all__ = ["IndexLag", "Projection"]

logger = logging.getLogger(__name__)

_SWEEP = "sweep"
_TICK = 0.25  # seconds between looks at what is to be indexed
_WRITTEN_AT_ONCE = 1000  # shares and items of a transaction, with one share more
_MAX_SHARES = 10_000  # that are remembered; of more, all are compared
_ATTEMPTS = 3  # at a share that other processes index, too
_LEASE = 60_000  # ms
_RETRY_AT_FIRST, _RETRY_AT_LAST = 1.0, 30.0  # seconds
_SWEEP_SHARE = 20  # of the time, at least so many times as long as it takes passes without a comparison
_KNOWN_DIFFS = 1000  # shares
_LOOKS_EVERY = 0.2  # seconds between two looks whether the database is still the same file
_UNKNOWN = -1  # in the place of an entry: the share is to be read from the store


class _Prepared(NamedTuple):
    """What is to be written of an open share."""

    share: WatchedShare
    pending: PendingItems
    changed: ChangedItems
    left: PendingItems | None
    """What is pending then."""


class IndexLag(NamedTuple):
    """How far the index is behind."""

    seconds: float
    """Since the oldest change that is not indexed, or since the database was away."""
    shares: int
    """How many have changes that are not indexed."""
    is_available: bool
    """Whether the database could be written last."""


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
        compares_first: bool = False,
        patience: float = 1.0,
        waits: bool = False,
        is_lazy: bool = False,
        on_written: Callable[[list[str]], None] = lambda _share_ids: None,
    ) -> None:
        """Index the shares of ``store``.

        Args:
            store: where they are.
            clock: milliseconds since the epoch.
            opened: opens the index, when it is needed for the first time; may raise DatabaseError.
            find_open: returns a share that is in memory.
            compare_every: seconds between comparisons of the store with the index.
            compares_first: whether that is done for each listing, too.
            patience: seconds for which a listing waits where not all is indexed.
            waits: whether what changes is only noted before :meth:`start`, or before somebody lists.
            is_lazy: whether nothing is indexed before somebody lists, or searches.
            on_written: hears of ids whose rows have been written.
        """
        self._store = store
        self._clock = clock
        self._open_index = opened
        self._find_open = find_open
        self._compare_every = compare_every
        self._index: SearchIndex | None = None
        self._opening = asyncio.Lock()
        self._holder = secrets.token_hex(8)
        self._pending: dict[str, PendingItems] = {}
        self._diffs: OrderedDict[str, tuple[str, int]] = OrderedDict()  # generation, and how many are indexed
        self._is_news = asyncio.Event()
        self._compare_at = 0.0
        self._worker: asyncio.Task[None] | None = None
        self._is_away = False
        self._away_since: float | None = None
        self._being_indexed: list[float] = []  # since when that is pending
        self._working = 0  # pieces of work under way
        self._is_closed = False
        self._looked_at = 0.0
        self._is_wanted = not is_lazy
        self._compares_first = compares_first
        self._patience = patience
        self._is_due = False  # a comparison, whenever the last one was
        self._comparison: asyncio.Future[None] | None = None  # the next, where somebody waits for it
        self._under_way: asyncio.Future[None] | None = None
        self._retry = asyncio.Event()
        self._complete: SearchIndex | None = None  # the one of which that is known
        self.rows = CatalogueWriter(self.index, on_written, self._touch_all)
        """Of the catalogue, those that the database may not have yet."""
        self._is_waiting = waits
        if waits:
            self.rows.wait()

    # What is heard of

    def changed(self, share: WatchedShare, items: Iterable[Item] | None, *, by_this_node: bool) -> None:
        """Hear that an entry with ``items`` has been added to an open share; None: any may have changed."""
        if not self._is_wanted:
            return
        if not self._is_away:
            self.rows.changed(share)
        pending = self._pending.get(share.share_id)
        if pending is None:
            if not by_this_node and items is not None:
                return  # who has written it indexes it
            if len(self._pending) >= _MAX_SHARES:
                self._pending.clear()
                self._is_due = True
            entry = share.entry
            pending = self._pending[share.share_id] = PendingItems(
                entry - 1, {} if items is not None else None
            )
            self._wake()
        if items is None or self._is_away:  # for how long, nobody knows: the whole share is looked at then
            pending.items = None
        else:
            pending.take(share.entry, items)

    def settings_changed(self, share: WatchedShare) -> None:
        """Hear that the head of an open share is another."""
        if not self._is_wanted:
            return
        if self._is_away:
            self.touch(share.share_id)
            return
        self.rows.changed(share)
        if share.share_id not in self._pending:
            self._pending[share.share_id] = PendingItems(share.entry, {})
        self._wake()

    def ended(self, share_id: str) -> None:
        """Hear that a share is deleted."""
        if self._is_wanted:
            self.rows.gone(share_id)
            self.touch(share_id)

    def touch(self, share_id: str, *, by_others: bool = False) -> None:
        """Hear that a share may be another than the index knows, or gone: by others, than this node knows."""
        if self._is_wanted:
            before = self._pending.get(share_id)
            since = None if before is None else before.since
            self._pending[share_id] = PendingItems(_UNKNOWN if by_others else 0, None, since)
            self._wake()

    def compare_soon(self) -> None:
        """Hear that any share may be another than the index knows."""
        self._is_due = True
        if self._is_wanted:
            self._wake()

    def _touch_all(self, share_ids: list[str]) -> None:
        for share_id in share_ids:
            self.touch(share_id)

    def start(self) -> None:
        """Begin, in the background, unless that has been done."""
        self._is_waiting = False
        self._wake()
        self.rows.begin()

    def _wake(self) -> None:
        self._is_wanted = True
        self._is_news.set()
        if self._worker is None and not (self._is_closed or self._is_waiting):
            self._worker = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Index what waits, if that does not take long, and end."""
        self._is_closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        if self._comparison is not None and not self._comparison.done():
            self._comparison.cancel()
        await self.rows.close()
        with suppress(DatabaseError, StoreError, TimeoutError):
            async with asyncio.timeout(2):
                if self._index is not None and not self._is_away:
                    await self.rows.write()
                    await self._index_pending(is_last=True)
        if self._index is not None:
            await self._index.database.close()

    async def index(self) -> "SearchIndex":
        """Return the index, opened if it is not. Raises DatabaseError."""
        async with self._opening:
            if self._index is not None and await self._is_replaced(self._index):
                await self._index.database.close()
                self._index = None
                self._diffs.clear()
                self._is_due = True
                self._is_news.set()  # whoever opens it, the worker may be at rest
                logger.warning("The file of the database is another one, or gone: it is opened again")
            if self._index is None:
                self._index = await self._open_index()
            return self._index

    async def _is_replaced(self, index: "SearchIndex") -> bool:
        now = monotonic()
        if now < self._looked_at + _LOOKS_EVERY:
            return False
        self._looked_at = now
        return await index.database.is_replaced()

    async def is_complete(self) -> bool:
        """Whether all shares have been indexed once. Raises DatabaseError."""
        index = await self.index()
        if self._complete is not index:
            if not await index.progress_of(COMPLETE):
                return False
            self._complete = index
        return True

    async def caught_up(self) -> bool:
        """Wait a little where the database is known to be behind; return whether it is not, any longer.

        Raises:
            DatabaseError: it failed.
            StoreError: the store did.
        """
        is_behind = self._is_away or self._compares_first
        comparison = self._next_comparison()
        self.start()
        if not is_behind:
            if await self.is_complete():
                return True
            comparison = self._under_way or comparison
        if comparison is not self._under_way:
            self.compare_soon()
            self._retry.set()
        done, _ = await asyncio.wait([comparison], timeout=self._patience)
        if not done or comparison.cancelled():
            return False
        comparison.result()
        return True

    def _next_comparison(self) -> asyncio.Future[None]:
        """Return what is done when the next comparison of the store with the index is."""
        if self._comparison is None or self._comparison.done():
            self._comparison = asyncio.get_running_loop().create_future()
            self._comparison.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._comparison

    # What is done

    async def _run(self) -> None:
        retry = _RETRY_AT_FIRST
        while True:
            try:
                await self._index_pending()
                if self._is_due or monotonic() >= self._compare_at:
                    await self._compare()
            except (DatabaseError, StoreError) as exc:
                if not self._is_away:
                    logger.warning("Search does not hear of what is shared, until this is mended: %s", exc)
                self._is_away = self._is_due = True
                self._away_since = self._away_since or monotonic()
                self._retry.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(retry):
                        await self._retry.wait()
                retry = min(2 * retry, _RETRY_AT_LAST)
                continue
            if self._is_away:
                logger.warning("Search is up to date again")
            self._is_away, self._away_since, retry = False, None, _RETRY_AT_FIRST
            if self._pending:
                await asyncio.sleep(_TICK)
            if self._pending or self._is_due:
                continue
            self._is_news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._compare_at - monotonic(), _TICK)):
                    await self._is_news.wait()
                await asyncio.sleep(_TICK)

    @property
    def is_up_to_date(self) -> bool:
        """Whether all that has been heard of is indexed, and the store has been compared with that."""
        is_idle = self.rows.is_done and not (self._pending or self._working or self._is_away)
        return is_idle and self._compare_at > 0 and not self._is_due

    def lag(self) -> IndexLag:
        """Return how far the index is behind what is known to have changed."""
        known = [pending.since for pending in self._pending.values()] + self._being_indexed
        shares = len(known)
        if self._away_since is not None:
            known.append(self._away_since)
        seconds = monotonic() - min(known) if known else 0.0
        return IndexLag(seconds, shares, is_available=not self._is_away)

    async def _index_pending(self, *, is_last: bool = False) -> None:
        self._working += 1
        try:
            await self._index_all_pending(is_last=is_last)
        finally:
            self._working -= 1

    async def _index_all_pending(self, *, is_last: bool) -> None:
        prepared: list[_Prepared] = []
        size = 0
        try:
            for share_id in list(self._pending):
                await asyncio.sleep(0)  # a hundred take milliseconds, for which others would wait
                pending = self._pending.pop(share_id, None)
                if pending is None:
                    continue
                self._being_indexed.append(pending.since)
                each = await self._prepare(share_id, pending, is_last=is_last)
                if each is None:
                    self._being_indexed.pop()
                    continue
                prepared.append(each)
                size += 1 + len(each.changed.names)
                if size >= _WRITTEN_AT_ONCE:
                    await self._write(prepared)
                    size = 0
            await self._write(prepared)
        except BaseException:
            # Of what was being written, there is no telling how much the index has.
            for each in prepared:
                self._pending[each.share.share_id] = PendingItems(0, None, each.pending.since)
            raise
        finally:
            self._being_indexed.clear()

    def _put_back(self, share_id: str, left: PendingItems) -> None:
        if (newer := self._pending.get(share_id)) is not None:
            left.add_newer(newer)
        self._pending[share_id] = left

    async def _prepare(self, share_id: str, pending: PendingItems, *, is_last: bool) -> "_Prepared | None":
        """Return what of a share is to be written now; None if that is nothing, or has been done."""
        share = self._find_open(share_id) if pending.base != _UNKNOWN else None
        try:
            if pending.items is None or share is None or share.is_ended or share.head_etag is None:
                await self._index_whole(share_id, share)
                return None
            resting, restless = pending.resting(is_last=is_last)
            if not resting and restless:
                self._put_back(share_id, pending)
                return None
            row, counted = await self.rows.row(share)
        except (StoreError, InvalidValueError) as exc:
            _tell_not_indexed(share_id, exc)
            return None
        except BaseException:
            self._pending[share_id] = PendingItems(0, None, pending.since)
            raise
        base = min((touched.entry for touched in restless.values()), default=share.entry + 1) - 1
        # What is counted at length is counted now and then: until that is done, the share is not indexed.
        base = min(base, max(counted, pending.base))
        generation, first = self._diffs.get(share_id, ("", 0))
        if generation != share.head.generation:
            first = 0
        changed = ChangedItems.of(share, resting, row, since=pending.base, until=base, first_diff=first)
        since = min((touched.first_at for touched in restless.values()), default=pending.since)
        left = PendingItems(base, restless, since) if restless or base < share.entry else None
        return _Prepared(share, pending, changed, left)

    async def _write(self, prepared: list["_Prepared"]) -> None:
        """Write what is prepared, in one transaction: one for each share would take ten times as long.

        What is done, is taken out of ``prepared``, from the first one on.
        """
        written = await self._written(prepared)
        for is_written in written:
            share, _, changed, left = prepared[0]
            if is_written is None:
                pass  # it cannot be
            elif not is_written:
                await self._index_again(share)
            else:
                if changed.diffs:
                    self._note_diffs(share.share_id, changed.share.generation, changed.diffs)
                if left is not None:
                    self._put_back(share.share_id, left)
            del prepared[0]
        self._being_indexed.clear()

    async def _written(self, prepared: Sequence["_Prepared"]) -> list[bool | None]:
        """Write what is prepared; of each, return whether it fitted; None: no database takes it."""
        if not prepared:
            return []
        index = await self.index()
        try:
            return list(await index.put_all([each.changed.change() for each in prepared]))
        except InvalidValueError as exc:
            # One share that cannot be written must not keep the others from being found.
            if len(prepared) == 1:
                _tell_not_indexed(prepared[0].share.share_id, exc)
                return [None]
        return [is_written for each in prepared for is_written in await self._written([each])]

    async def _index_again(self, share: WatchedShare) -> None:
        try:
            await self._index_whole(share.share_id, share)
        except (StoreError, InvalidValueError) as exc:
            _tell_not_indexed(share.share_id, exc)

    async def _index_whole(self, share_id: str, share: WatchedShare | None = None) -> None:
        index = await self.index()
        for _ in range(_ATTEMPTS):
            before, listed = (await index.seen([share_id]))[share_id]
            read: ReadShare | None = None
            if share is not None and not share.is_ended and share.head_etag is not None:
                read = ReadShare(share.head, share.head_etag, share.state, share.entry, share.log_etag)
            if read is None or _may_be_newer(before, read):
                read = await read_share(self._store, share_id)
            else:
                listed = None  # of what others have written since, it may tell
            if read is None:
                if before is not None:
                    await index.forget(share_id)
                return
            if await put_whole(index, share_id, read, before, listed):
                self._diffs.pop(share_id, None)
                return
        self.touch(share_id)  # other processes are at it

    def _note_diffs(self, share_id: str, generation: str, count: int) -> None:
        self._diffs[share_id] = generation, count
        self._diffs.move_to_end(share_id)
        if len(self._diffs) > _KNOWN_DIFFS:
            self._diffs.popitem(last=False)

    async def _compare(self) -> None:
        waiting = self._under_way = self._next_comparison()
        self._comparison, self._is_due = None, False
        self._working += 1
        try:
            await self._compare_all()
        except (DatabaseError, StoreError) as exc:
            waiting.set_exception(exc)
            raise
        except BaseException:
            waiting.cancel()
            raise
        else:
            waiting.set_result(None)
        finally:
            self._under_way = None
            self._working -= 1

    async def _compare_all(self) -> None:
        """Index each share of which the store has another state than the index, and no node tells of it."""
        began_at = monotonic()
        index = await self.index()
        self._compare_at = began_at + self._compare_every  # unless this fails
        last = ""
        async for some in in_groups(share_places(self._store)):
            now = self._clock()
            if not await index.lease(_SWEEP, self._holder, now, now + _LEASE):
                # Another process does it, or has been killed as it did.
                self._compare_at = monotonic() + min(self._compare_every, _LEASE / 10_000)
                return
            known = await index.known([place.share_id for place in some])
            for place in some:
                before = known.get(place.share_id)
                if place.share_id in self._pending or place.is_of(before):
                    continue
                try:
                    share = self._find_open(place.share_id)
                    is_ahead = before is not None and before.is_ahead
                    if share is not None and (is_ahead or not place.is_at(share)):
                        share = None  # others have written it, or the store has been put back
                    await self._index_whole(place.share_id, share)
                except (StoreError, InvalidValueError) as exc:
                    _tell_not_indexed(place.share_id, exc)
                if self._pending:
                    await self._index_pending()
            there = {place.share_id for place in some}
            after, last = last, max(last, *there)
            await self._forget_others(index, there, after, last)
        await self._forget_others(index, set(), last, None)
        if not await index.progress_of(COMPLETE):
            await index.note_progress(COMPLETE, "yes")
        await index.merge_as_usual()
        await index.release(_SWEEP, self._holder)
        self._compare_at = monotonic() + max(self._compare_every, _SWEEP_SHARE * (monotonic() - began_at))

    async def _forget_others(
        self, index: "SearchIndex", there: set[str], after: str, until: str | None
    ) -> None:
        """Look at the shares of the index that the store does not have, as it was put back or emptied."""
        while ids := await index.ids(after, COMPARED_AT_ONCE, until):
            for share_id in ids:
                if share_id not in there and share_id not in self._pending:
                    await self._index_whole(share_id)
            after = ids[-1]


def _may_be_newer(known: "IndexedShare | None", read: ReadShare) -> bool:
    """Whether the index may know a later state than that of an open share, or one that is over."""
    if known is None or known.generation != read.head.generation:
        return False
    is_other = known.log_etag is not None and known.log_etag != read.log_etag
    return known.entry > read.entry or (known.entry == read.entry and is_other)


def _tell_not_indexed(share_id: str, why: Exception) -> None:
    logger.warning("Share %s is not indexed: %s", share_id, why)
