"""The listing of all shares, without reading any: a row for each, in memory.

Rows come from the ``index/`` objects, and from the shares that this node has open. They are written
behind, so they may lag after a crash; opening a share repairs its row.
"""

import asyncio
import logging
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from contextlib import suppress

from rpcshare.shares import objects
from rpcshare.shares.context import WatchedShare, wall_clock
from rpcshare.shares.journal import Journal
from rpcshare.shares.legacy_layout import decode_legacy_index
from rpcshare.shares.objects import IndexRow
from rpcshare.shares.page import Page, Query
from rpcshare.storage import ObjectStore, PreconditionFailedError, StoreError

__all__ = ["Catalogue"]

logger = logging.getLogger(__name__)

_AT_ONCE = 16  # reads or writes of index objects under way
_REFRESH_EVERY = 1.0  # seconds
_WRITE_EVERY = 1.0  # seconds
_WRITE_ATTEMPTS = 4


class _Listed:
    """A row, and what is known of it in the store."""

    def __init__(self, row: IndexRow, etag: str | None) -> None:
        self.etag = etag  # None: not known to be there
        self.set_row(row)

    def set_row(self, row: IndexRow) -> None:
        index = row.index
        self.row = row
        self.order = (-index.created_at, index.id)  # newest first
        texts = (index.title, index.directory, index.id, index.session_id)
        self.texts = tuple(text.casefold() for text in texts)


class Catalogue:
    """All shares as a listing shows them. Methods raise StoreError unless they say otherwise."""

    def __init__(self, store: ObjectStore, *, is_shared: bool, clock: Callable[[], int] = wall_clock) -> None:
        """List what is in ``store``, which other nodes may write to if ``is_shared``.

        ``clock`` returns the time in milliseconds since the epoch: what has expired is not listed.
        """
        self._clock = clock
        self._store = store
        self._is_shared = is_shared
        self._listed: dict[str, _Listed] = {}  # by share id
        self._order: list[tuple[int, str]] = []  # the order of all in _listed
        self._refreshed_at: float | None = None  # None: _listed has only shares opened here
        self._refreshing = asyncio.Lock()
        self._touched: set[str] = set()  # shares whose row changed here since a refresh began
        self._changed: dict[str, WatchedShare] = {}  # shares that have a newer row than the one in _listed
        self._unwritten: dict[str, None] = {}  # shares whose row is newer than the store's
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def page(self, query: Query) -> Page:
        """Return the shares that ``query`` asks for, in its order."""
        await self._refresh()
        for share_id in list(self._changed):
            self._take_changed(share_id)
        orders = [order for order in self._order if self._matches(self._listed[order[1]], query)]
        if query.by_change:
            orders = sorted((-self._listed[each].row.index.last_updated, each) for _, each in orders)
        start = bisect_right(orders, query.after) if query.after is not None else 0
        shown = orders[start : start + query.limit]
        has_more = start + query.limit < len(orders)
        return Page(
            sessions=[self._listed[share_id].row.index for _, share_id in shown],
            count=len(orders),
            cursor=Query.cursor_behind(shown[-1]) if has_more else None,
        )

    def _matches(self, listed: _Listed, query: Query) -> bool:
        if query.owners is not None and listed.row.owner not in query.owners:
            return False
        expires_at = listed.row.expires_at
        if expires_at is not None and self._clock() >= expires_at:
            return False
        return not query.text or any(query.text in text for text in listed.texts)

    # What this node knows at first hand

    async def add(self, log: WatchedShare) -> None:
        """List a share that has just been made."""
        self._set(_row(log), None)
        await self._write(log.share_id, is_new=True)

    def update(self, log: WatchedShare, *, is_written_here: bool) -> None:
        """Take note that a share has a new row. It is written soon if this node made it new."""
        if is_written_here:
            # Every sync comes here, but the row of only the last before it is looked at is made.
            self._touched.add(log.share_id)
            self._changed[log.share_id] = log
            self._write_soon(log.share_id)
        else:
            self._set(_row(log), None)

    async def repair(self, log: WatchedShare) -> None:
        """Take note of a share's row as its log has it, and write it if the store's is another."""
        row = _row(log)
        stored = await self._store.get(objects.index_key(row.index.id, row.generation))
        self._set(row, stored.etag if stored else None)
        if stored is None or _readable(stored.key, stored.body) != row:
            self._write_soon(row.index.id)

    def remove(self, share_id: str, generation: str) -> None:
        """Forget a share that has been deleted. Its index object is removed with its others."""
        self._touched.add(share_id)
        listed = self._listed.get(share_id)
        if listed is not None and listed.row.generation == generation:
            self._drop(listed)

    def generation_of(self, share_id: str) -> str | None:
        """Return the generation of a share that is listed, or None if it is not."""
        listed = self._listed.get(share_id)
        return listed.row.generation if listed is not None else None

    async def forget(self, share_id: str, generation: str) -> None:
        """Remove the row, here and in the store, of a generation that is known to be dead."""
        self.remove(share_id, generation)
        await self._store.delete([objects.index_key(share_id, generation)])

    async def close(self) -> None:
        """Write what is not written. Does not raise: what cannot be written is repaired later."""
        self._closing.set()
        if self._writer is not None:
            await self._writer

    def _set(self, row: IndexRow, etag: str | None) -> None:
        share_id = row.index.id
        self._touched.add(share_id)
        listed = self._listed.get(share_id)
        if listed is not None and listed.row.generation == row.generation:
            listed.set_row(row.merged_with(listed.row))
            listed.etag = etag or listed.etag
            return
        if listed is not None:
            self._drop(listed)
        listed = self._listed[share_id] = _Listed(row, etag)
        insort(self._order, listed.order)

    def _take_changed(self, share_id: str) -> None:
        """List a share as its log has it now, if that has changed."""
        log = self._changed.pop(share_id, None)
        if log is not None:
            self._set(_row(log), None)

    def _drop(self, listed: _Listed) -> None:
        share_id = listed.row.index.id
        del self._listed[share_id]
        del self._order[bisect_left(self._order, listed.order)]
        self._unwritten.pop(share_id, None)
        self._changed.pop(share_id, None)

    # Writing behind

    def _write_soon(self, share_id: str) -> None:
        self._unwritten[share_id] = None
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_behind())

    async def _write_behind(self) -> None:
        try:
            while self._unwritten:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _WRITE_EVERY)
                share_ids = list(self._unwritten)
                for start in range(0, len(share_ids), _AT_ONCE):
                    some = share_ids[start : start + _AT_ONCE]
                    await asyncio.gather(*(self._try_to_write(share_id) for share_id in some))
                if self._closing.is_set():
                    return
        finally:
            self._writer = None

    async def _try_to_write(self, share_id: str) -> None:
        try:
            await self._write(share_id)
        except StoreError as exc:
            logger.warning("Could not write the index of share %s: %s", share_id, exc)
            if share_id in self._listed:
                self._unwritten[share_id] = None

    async def _write(self, share_id: str, *, is_new: bool = False) -> None:
        """Write a row, unless another node has written a newer one or the share is gone.

        That a share is not new, and has no row, may be because it is gone.
        """
        self._unwritten.pop(share_id, None)
        self._take_changed(share_id)
        listed = self._listed.get(share_id)
        if listed is None:
            return
        key = objects.index_key(share_id, listed.row.generation)
        for _ in range(_WRITE_ATTEMPTS):
            row, etag = listed.row, listed.etag
            body = objects.encode_index(row)
            try:
                stored = await self._store.put(key, body, if_absent=etag is None, if_match=etag)
            except PreconditionFailedError:
                found = await self._store.get(key)
            else:
                listed.etag = stored
                journal = Journal(self._store, share_id, listed.row.generation)
                if etag is None and not is_new and await journal.live_head() is None:
                    await self.forget(share_id, journal.generation)
                return
            if found is None:  # a row is removed only with its share
                if self._listed.get(share_id) is listed:
                    self._drop(listed)
                return
            listed.etag = found.etag
            theirs = _readable(key, found.body)
            if theirs is not None:
                listed.set_row(theirs.merged_with(listed.row))
                if listed.row == theirs:
                    return
        raise StoreError("other nodes write it all the time")

    # Reading what other nodes wrote

    async def _refresh(self) -> None:
        async with self._refreshing:
            now = time.monotonic()
            if self._refreshed_at is None:
                await self._read_all()
            elif self._is_shared and now - self._refreshed_at >= _REFRESH_EVERY:
                await self._read_changed()
            else:
                return
            self._refreshed_at = now

    async def _read_all(self) -> None:
        self._touched.clear()
        async for key, body, etag in self._store.scan(objects.INDEX_PREFIX):
            self._take(key, body, etag)

    async def _read_changed(self) -> None:
        self._touched.clear()
        known = {self._key_of(listed): listed.etag for listed in self._listed.values()}
        seen = set()
        changed = []
        async for key, etag, _ in self._store.list(objects.INDEX_PREFIX):
            seen.add(key)
            if known.get(key) != etag:
                changed.append(key)
        for start in range(0, len(changed), _AT_ONCE):
            keys = changed[start : start + _AT_ONCE]
            for found in await asyncio.gather(*(self._store.get(key) for key in keys)):
                if found is not None:
                    self._take(found.key, found.body, found.etag)
        gone = [listed for listed in self._listed.values() if self._key_of(listed) not in seen]
        for listed in gone:
            if listed.etag is not None and listed.row.index.id not in self._touched:
                self._drop(listed)

    def _key_of(self, listed: _Listed) -> str:
        return objects.index_key(listed.row.index.id, listed.row.generation)

    def _take(self, key: str, body: bytes, etag: str) -> None:
        row = _readable(key, body)
        if row is None or row.index.id in self._touched:
            return
        listed = self._listed.get(row.index.id)
        if listed is not None and listed.row.generation == row.generation:
            listed.etag = etag
            listed.set_row(listed.row.merged_with(row))  # this node may have the share open
            return
        if listed is not None and (
            row.generation == objects.OLDER or listed.row.index.created_at > row.index.created_at
        ):
            return  # what a crash has left of an older generation
        self._set(row, etag)


def _row(log: WatchedShare) -> IndexRow:
    return IndexRow.of(log.head, log.state.index())


def _readable(key: str, body: bytes) -> IndexRow | None:
    """Return the row, or None for one that cannot be read: it must not spoil a whole listing."""
    _, share_id, *generation = key.split("/")
    try:
        return objects.decode_index(body) if generation else decode_legacy_index(share_id, body)
    except StoreError as exc:
        logger.warning("Skipped %s: %s", key, exc)
        return None
