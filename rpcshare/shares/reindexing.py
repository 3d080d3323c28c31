"""The store compared with the search index: what the index does not know, and all of it made again."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple

from rpcshare.database import InvalidValueError
from rpcshare.shares.context import WatchedShare
from rpcshare.shares.share_identity import is_share_id
from rpcshare.shares.share_indexing import ReadShare, put_whole, read_share, whole_change
from rpcshare.storage import ObjectStore, StoreError

if TYPE_CHECKING:
    from rpcshare.shares.search_index import Change, IndexedShare, SearchIndex, Seen

__all__ = [
    "COMPARED_AT_ONCE",
    "COMPLETE",
    "SharePlace",
    "in_groups",
    "index_anew",
    "out_of_date",
    "share_places",
]

COMPLETE = "complete"
"""The name of what is noted in the database once all shares have been indexed."""

COMPARED_AT_ONCE = 200
"""Shares of which the database is asked at once."""

_REINDEXED = "reindex"
_TOGETHER = 8 * 2**20  # bytes of shares that are written in one transaction
_MOST_TOGETHER = 500  # shares, likewise
_READ_AHEAD = 4  # shares
_ATTEMPTS = 3  # at a share that other processes index, too


async def index_anew(
    store: ObjectStore, index: "SearchIndex", on_share: Callable[[], None] = lambda: None
) -> tuple[int, list[str]]:
    """Index all shares of ``store`` again, whatever the index knows; go on where that was interrupted.

    Returns:
        How many there are, and what could not be read.

    Raises:
        StoreError: the store failed.
        DatabaseError: the database failed.
    """
    done = await index.progress_of(_REINDEXED)
    anew = _Anew(store, index, on_share)
    async with index.in_bulk():
        try:
            async for some in in_groups(share_places(store, start_after=done)):
                seen = await index.seen([place.share_id for place in some])
                for place in some:
                    await anew.take(place, seen[place.share_id])
            await anew.finish()
        finally:
            await anew.close()
    async for share_id in _not_there(store, index):
        if await read_share(store, share_id) is None:
            await index.forget(share_id)
    await index.note_progress(_REINDEXED, "")
    await index.note_progress(COMPLETE, "yes")
    return anew.count, anew.unread


async def _not_there(store: ObjectStore, index: "SearchIndex") -> AsyncIterator[str]:
    """Yield the ids of the shares that the index has, and of which the store has no key."""
    after = ""
    async for some in in_groups(share_places(store)):
        there = {place.share_id for place in some}
        last = some[-1].share_id
        async for share_id in _ids(index, after, last):
            if share_id not in there:
                yield share_id
        after = last
    async for share_id in _ids(index, after, None):
        yield share_id


async def _ids(index: "SearchIndex", after: str, until: str | None) -> AsyncIterator[str]:
    while ids := await index.ids(after, COMPARED_AT_ONCE, until):
        for share_id in ids:
            yield share_id
        after = ids[-1]


class _Prepared(NamedTuple):
    """What is to be written of a share."""

    change: "Change | None"
    size: int
    is_there: bool


class _Anew:
    """Shares that are indexed again. Some are read while others are written, many in one transaction."""

    def __init__(self, store: ObjectStore, index: "SearchIndex", on_share: Callable[[], None]) -> None:
        self._store = store
        self._index = index
        self._on_share = on_share
        self._being_read: deque[tuple[SharePlace, asyncio.Task[_Prepared]]] = deque()
        self._size_being_read = 0
        self._changes: list[Change] = []
        self._size = 0
        self._last_key = ""
        self._being_written: asyncio.Task[None] | None = None
        self.count = 0
        self.unread: list[str] = []

    async def take(self, place: "SharePlace", seen: "Seen") -> None:
        """Index a share as the store has it: now, or with those that follow."""
        reading = asyncio.create_task(self._prepared(place.share_id, seen))
        self._being_read.append((place, reading))
        self._size_being_read += place.size
        while len(self._being_read) >= _READ_AHEAD or (
            len(self._being_read) > 1 and self._size_being_read > _TOGETHER
        ):
            await self._take_first()

    async def _prepared(self, share_id: str, seen: "Seen") -> "_Prepared":
        if (read := await self._read(share_id)) is None:
            return _Prepared(None, 0, is_there=False)
        change = await whole_change(share_id, read, seen.share, seen.row)
        size = 0 if read.state is None else read.state.content.size
        if change is not None and size <= _TOGETHER:
            # Made now, while FTS5 has others; those of a larger one are made as they are written.
            change = change._replace(found=iter(await asyncio.to_thread(list, change.found)))
        return _Prepared(change, size, is_there=read.state is not None)

    async def _take_first(self) -> None:
        place, reading = self._being_read[0]
        change, size, is_there = await reading
        self._being_read.popleft()
        self._size_being_read -= place.size
        self.count += is_there
        self._last_key = place.last_key
        if change is not None:
            self._changes.append(change)
            self._size += size
        if self._size > _TOGETHER or len(self._changes) >= _MOST_TOGETHER:
            await self._begin_to_write()
        self._on_share()

    async def _begin_to_write(self) -> None:
        """Write what has been taken while more is read: FTS5 works beside Python."""
        await self._written()
        changes, self._changes, self._size = self._changes, [], 0
        self._being_written = asyncio.create_task(self._write(changes, self._last_key))

    async def _written(self) -> None:
        writing, self._being_written = self._being_written, None
        if writing is not None:
            await writing

    async def finish(self) -> None:
        """Write all that has been taken."""
        while self._being_read:
            await self._take_first()
        await self._begin_to_write()
        await self._written()

    async def close(self) -> None:
        """Give up what is being read and written, if anything is."""
        working: list[asyncio.Task[_Prepared] | asyncio.Task[None]] = [task for _, task in self._being_read]
        if self._being_written is not None:
            working.append(self._being_written)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    async def _write(self, changes: "list[Change]", last_key: str) -> None:
        try:
            written = await self._index.put_all(changes)
        except InvalidValueError:
            written = [False] * len(changes)  # one of them is why: each is written by itself
        for change, is_written in zip(changes, written, strict=True):
            if not is_written:
                await self._again(change.share.id)
        if last_key:
            await self._index.note_progress(_REINDEXED, last_key)

    async def _again(self, share_id: str) -> None:
        for _ in range(_ATTEMPTS):
            seen = (await self._index.seen([share_id]))[share_id]
            read = await self._read(share_id)
            try:
                if read is None or await put_whole(self._index, share_id, read, seen.share, seen.row):
                    return
            except InvalidValueError as exc:
                self.unread.append(f"{share_id}: {exc}")
                return

    async def _read(self, share_id: str) -> ReadShare | None:
        try:
            return await read_share(self._store, share_id)
        except StoreError as exc:
            await self._store.check()  # that answers, so it is the share
            self.unread.append(f"{share_id}: {exc}")
            return None


async def out_of_date(store: ObjectStore, index: "SearchIndex") -> AsyncIterator[str]:
    """Yield the ids of the shares of which the index knows another state than the store has."""
    async for some in in_groups(share_places(store)):
        known = await index.known([place.share_id for place in some])
        for place in some:
            if not place.is_of(known.get(place.share_id)):
                yield place.share_id


class _Last(NamedTuple):
    """The last entry of a generation."""

    number: int
    etags: tuple[str, ...]
    """Its own, and that of the snapshot of its number, as far as they are there."""


_NO_ENTRY = _Last(0, ())


class SharePlace:
    """What the keys of a share tell of its state, without reading anything."""

    def __init__(self, share_id: str) -> None:
        self.share_id = share_id
        self.head_etag = ""
        self.last_key = ""
        self.size = 0
        self._last: dict[str, _Last] = {}  # of each generation

    def put(self, key: str, etag: str, size: int) -> None:
        """Take in one more key, of an object of ``size`` bytes."""
        self.last_key = key
        self.size += size
        parts = key.split("/")
        if parts[-1] == "head":
            self.head_etag = etag
        elif len(parts) == 5:
            number, last = int(parts[4]), self._last.get(parts[2], _NO_ENTRY)
            if number > last.number:
                self._last[parts[2]] = _Last(number, (etag,))
            elif number == last.number:
                self._last[parts[2]] = _Last(number, (*last.etags, etag))

    def is_at(self, share: WatchedShare) -> bool:
        """Whether an open share is in this state."""
        if share.is_ended or share.head_etag != self.head_etag:
            return False
        last = self._last.get(share.head.generation, _NO_ENTRY)
        # Where an older copy of the store was put in its place, and went on, another entry has the number.
        return share.entry == last.number and (not last.etags or share.log_etag in last.etags)

    def is_of(self, known: "IndexedShare | None") -> bool:
        """Whether the index knows this state, and nothing that is ahead of it."""
        if known is None or known.head_etag != self.head_etag or known.is_ahead:
            return False
        if known.is_deleted:
            return True
        last = self._last.get(known.generation, _NO_ENTRY)
        is_same = known.log_etag is None or not last.etags or known.log_etag in last.etags
        return known.entry == last.number and is_same


async def share_places(store: ObjectStore, *, start_after: str = "") -> AsyncIterator[SharePlace]:
    """Yield what the keys of each share tell, in the order of ids, from behind the key ``start_after``."""
    place: SharePlace | None = None
    async for info in store.list("share/", start_after=start_after):
        parts = info.key.split("/")
        if (
            not is_share_id(parts[1])
            or len(parts) not in (2, 3, 5)
            or (len(parts) == 5 and not parts[4].isdecimal())
        ):
            continue  # the doctor tells of it
        if place is not None and place.share_id != parts[1]:
            yield place
            place = None
        if place is None:
            place = SharePlace(parts[1])
        place.put(info.key, info.etag, info.size)
    if place is not None:
        yield place


async def in_groups(places: AsyncIterator[SharePlace]) -> AsyncIterator[list[SharePlace]]:
    """Yield ``places``, as many together as the database is asked of at once."""
    some: list[SharePlace] = []
    async for place in places:
        some.append(place)
        if len(some) == COMPARED_AT_ONCE:
            yield some
            some = []
    if some:
        yield some
