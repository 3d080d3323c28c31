"""The shares of a store, read without a server: whole, and of either layout."""

from collections.abc import AsyncIterator

import msgspec

from rpcshare.maintenance.stored_keys import shelves
from rpcshare.shares import objects
from rpcshare.shares.journal import Journal, read_head
from rpcshare.shares.legacy_layout import find_legacy, read_legacy
from rpcshare.shares.objects import Head, LogSnapshot
from rpcshare.shares.replay import replay
from rpcshare.storage import ObjectStore

__all__ = ["StoredShare", "read_share", "share_ids"]


class StoredShare(msgspec.Struct, frozen=True):
    """A share as it was when it was read."""

    head: Head
    snapshot: LogSnapshot
    faults: tuple[str, ...] = ()
    """What else there is of a share in the older layout, which no share can hold."""


async def share_ids(store: ObjectStore) -> AsyncIterator[str]:
    """Yield the id of every share that there may be, once.

    Raises:
        StoreError: the store failed.
    """
    async for shelf in shelves(store):
        if shelf.has_head:
            yield shelf.share_id
        elif shelf.older_key is not None:
            found = await find_legacy(store, shelf.share_id)
            has_head = await store.get(objects.head_key(shelf.share_id)) is not None
            if found is not None and found.key == shelf.older_key and not has_head:
                yield shelf.share_id


async def read_share(store: ObjectStore, share_id: str) -> StoredShare | None:
    """Return a share, or None if there is none of this id, or no longer.

    Raises:
        StoreError: the store failed, or holds something that cannot be read.
    """
    found = await read_head(store, share_id)
    if found is None:
        older = await read_legacy(store, share_id)
        if older is not None:
            return StoredShare(older.head, older.snapshot, older.faults)
        found = await read_head(store, share_id)  # it may just have been upgraded
    if found is None or found.head.deleted:
        return None
    journal = Journal(store, share_id, found.head.generation)
    replayed = await replay(journal, found.head, found.etag)
    if replayed.is_ended:
        return None
    state = replayed.state
    content = state.content
    snapshot = LogSnapshot(state.sync_count, state.last_updated, content.items(), content.reverts.removed)
    return StoredShare(found.head, snapshot)
