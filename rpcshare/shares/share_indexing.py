"""What is written into the search index of a share: all that was read from the store, or some items of it."""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from rpcshare.shares.catalogue_row import CatalogueRow, FiguresSource
from rpcshare.shares.context import WatchedShare
from rpcshare.shares.journal import Journal, read_head
from rpcshare.shares.legacy_layout import LegacyJournal, read_legacy
from rpcshare.shares.objects import Head
from rpcshare.shares.replay import replay
from rpcshare.shares.search_texts import Items, reverted_to, texts_of
from rpcshare.shares.search_words import clean
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import Kind
from rpcshare.storage import ObjectStore

if TYPE_CHECKING:
    from rpcshare.shares.search_index import Change, IndexedShare, SearchIndex

__all__ = ["ChangedItems", "ReadShare", "indexed_share", "put_whole", "read_share", "whole_change"]


class ReadShare(NamedTuple):
    """A share, read from the store."""

    head: Head
    head_etag: str
    state: ShareState | None
    """None: it is deleted."""
    entry: int
    log_etag: str | None = None
    """Of the entry, or of the snapshot in its place, where there is either."""


class ChangedItems(NamedTuple):
    """Some items of a share as they are now, to be indexed."""

    share: "IndexedShare"
    """As the index knows it then."""
    since: int
    """The entry up to which it must know the share before."""
    names: list[str]
    items: Items
    reverted: tuple[str, str]
    row: CatalogueRow

    @classmethod
    def of(
        cls,
        share: WatchedShare,
        keys: Sequence[tuple[Kind, bytes]],
        row: CatalogueRow,
        *,
        since: int,
        until: int,
        first_diff: int,
    ) -> Self:
        """Take the items ``keys`` of an open share.

        Args:
            share: is not deleted.
            keys: the items; any diff stands for all.
            row: what the catalogue is to have of it.
            since: the entry up to which the index knows all of it.
            until: that up to which it does then.
            first_diff: of those that are not indexed yet.
        """
        items = Items.of(share.state, keys)
        names = [_item_name(kind, key) for kind, key in keys]
        if items.diffs:
            if not first_diff:
                names += [f"diff:{number}" for number in range(len(items.diffs))]
            items = msgspec.structs.replace(items, diffs=items.diffs[first_diff:], first_diff=first_diff)
        is_ahead = until < share.entry
        log_etag = None if is_ahead else share.log_etag
        known = indexed_share(share.head, share.head_etag or "", share.share_id, share.state, until, log_etag)
        known = msgspec.structs.replace(known, is_ahead=is_ahead)
        return cls(known, since, names, items, reverted_to(share.state.content.session), row)

    @property
    def diffs(self) -> int:
        """How many diffs of the share are indexed then; 0: as many as before."""
        return self.items.first_diff + len(self.items.diffs) if self.items.diffs else 0

    def change(self) -> "Change":
        """Return this for the index, which uses it up."""
        from rpcshare.shares.search_index import Change  # noqa: PLC0415 -- imports SQLAlchemy

        found = texts_of(self.items, self.reverted)
        return Change(self.share, found, items=self.names, since=self.since, row=self.row)


def _item_name(kind: Kind, key: bytes) -> str:
    return "session" if kind is Kind.SESSION else f"{kind}:{key.decode()}"


async def read_share(store: ObjectStore, share_id: str) -> ReadShare | None:
    """Return a share as the store has it, or None if it has none of that id."""
    found = await read_head(store, share_id)
    if found is None:
        older = await read_legacy(store, share_id)
        if older is None:
            return None
        read = await replay(LegacyJournal(store, share_id, older), older.head, None)
        return ReadShare(older.head, "", read.state, read.entry)
    if found.head.deleted:
        return ReadShare(found.head, found.etag, None, 0)
    read = await replay(Journal(store, share_id, found.head.generation), found.head, found.etag)
    if read.is_ended:
        return ReadShare(found.head, found.etag, None, read.entry)
    log_etag = read.entry_etag or (read.snapshot_etag if read.snapshot == read.entry else None)
    return ReadShare(found.head, found.etag, read.state, read.entry, log_etag)


def indexed_share(
    head: Head, head_etag: str, share_id: str, state: ShareState, entry: int, log_etag: str | None
) -> "IndexedShare":
    """Return what the index knows once it has all of a share up to ``entry``, which has ``log_etag``."""
    from rpcshare.shares.search_index import IndexedShare  # noqa: PLC0415 -- imports SQLAlchemy

    message_id, part_id = reverted_to(state.content.session)
    return IndexedShare(
        id=share_id,
        generation=head.generation,
        head_etag=head_etag,
        entry=entry,
        owner=head.owner,
        expires_at=head.expires_at,
        title=clean(state.index().title),
        reverted_to=clean(f"{message_id} {part_id} {_marked(state.content.reverts.messages)}".strip()),
        log_etag=log_etag,
    )


def _marked(removed: Mapping[str, str]) -> str:
    """Return what tells the messages that are removed from others; empty where none are."""
    return blake2b(repr(sorted(removed.items())).encode(), digest_size=8).hexdigest() if removed else ""


async def put_whole(
    index: "SearchIndex",
    share_id: str,
    read: ReadShare,
    before: "IndexedShare | None",
    listed: CatalogueRow | None,
) -> bool:
    """Index all of a share; return False if the index does not know it as ``before`` any more.

    Args:
        index: of which.
        share_id: of the share.
        read: the share.
        before: what the index knew.
        listed: the row of the catalogue, looked at before ``read`` was read from the store: whatever it is,
            it is older, or of what the store does not have any more.
    """
    change = await whole_change(share_id, read, before, listed)
    return change is None or (await index.put_all([change]))[0]


async def whole_change(
    share_id: str, read: ReadShare, before: "IndexedShare | None", listed: CatalogueRow | None
) -> "Change | None":
    """Return what :func:`put_whole` writes; None if nothing has changed."""
    from rpcshare.shares.search_index import Change, IndexedShare  # noqa: PLC0415 -- imports SQLAlchemy

    if read.state is None:
        gone = IndexedShare(share_id, read.head.generation, read.head_etag, 0, is_deleted=True)
        return None if before == gone else Change(gone, iter(()), before)
    row = indexed_share(read.head, read.head_etag, share_id, read.state, read.entry, read.log_etag)
    items, reverted = Items.of(read.state, None), reverted_to(read.state.content.session)
    source = FiguresSource(read.state)
    figures = await asyncio.to_thread(source.counted)
    new_row = CatalogueRow.of(read.head, read.state, figures)
    return Change(row, iter(texts_of(items, reverted)), before, row=new_row, listed=listed)
