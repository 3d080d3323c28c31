"""The store compared with the search index: what the index does not know, and all of it made again."""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from rpcshare.shares.context import WatchedShare
from rpcshare.shares.share_identity import is_share_id
from rpcshare.shares.share_indexing import put_whole, read_share
from rpcshare.storage import ObjectStore, StoreError

if TYPE_CHECKING:
    from rpcshare.shares.search_index import IndexedShare, SearchIndex

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
    count, unread = 0, []
    async for some in in_groups(share_places(store, start_after=done)):
        for place in some:
            try:
                count += await _index_again(store, index, place.share_id)
            except StoreError as exc:
                await store.check()  # that answers, so it is the share
                unread.append(f"{place.share_id}: {exc}")
            on_share()
        await index.note_progress(_REINDEXED, some[-1].last_key)
    # What the index has of shares that the store has no more.
    after = ""
    while ids := await index.ids(after, COMPARED_AT_ONCE):
        for share_id in ids:
            if await read_share(store, share_id) is None:
                await index.forget(share_id)
        after = ids[-1]
    await index.note_progress(_REINDEXED, "")
    await index.note_progress(COMPLETE, "yes")
    return count, unread


async def _index_again(store: ObjectStore, index: "SearchIndex", share_id: str) -> bool:
    """Index a share as the store has it; return whether there is one."""
    read = None
    for _ in range(_ATTEMPTS):
        before = (await index.known([share_id])).get(share_id)
        read = await read_share(store, share_id)
        if read is None or await put_whole(index, share_id, read, before):
            break
    return read is not None and read.state is not None


async def out_of_date(store: ObjectStore, index: "SearchIndex") -> AsyncIterator[str]:
    """Yield the ids of the shares of which the index knows another state than the store has."""
    async for some in in_groups(share_places(store)):
        known = await index.known([place.share_id for place in some])
        for place in some:
            if not place.is_of(known.get(place.share_id)):
                yield place.share_id


class SharePlace:
    """What the keys of a share tell of its state, without reading anything."""

    def __init__(self, share_id: str) -> None:
        self.share_id = share_id
        self.head_etag = ""
        self.last_key = ""
        self._entries: dict[str, int] = {}  # the last of each generation

    def put(self, key: str, etag: str) -> None:
        """Take in one more key."""
        self.last_key = key
        parts = key.split("/")
        if parts[-1] == "head":
            self.head_etag = etag
        elif len(parts) == 5:
            self._entries[parts[2]] = max(self._entries.get(parts[2], 0), int(parts[4]))

    def is_at(self, share: WatchedShare) -> bool:
        """Whether an open share is in this state."""
        is_last = share.entry == self._entries.get(share.head.generation, share.entry)
        return not share.is_ended and share.head_etag == self.head_etag and is_last

    def is_of(self, known: "IndexedShare | None") -> bool:
        """Whether the index knows this state."""
        if known is None or known.head_etag != self.head_etag:
            return False
        return known.is_deleted or known.entry == self._entries.get(known.generation, 0)


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
        place.put(info.key, info.etag)
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
