"""Listings and searches of the shares of a store, answered from the database.

The database is a projection of the store (:mod:`~rpcshare.shares.projection`), so it may be behind: a hit is
shown only if the store has the share still, and its owner is one whose shares the caller may list.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec

from rpcshare.broadcast import Broadcaster
from rpcshare.database import DatabaseError, QueryTooLongError
from rpcshare.shares.activity import Activity
from rpcshare.shares.catalogue_news import CatalogueNews
from rpcshare.shares.context import WatchedShare
from rpcshare.shares.failures import listing_unavailable, search_too_long, search_unavailable, storing
from rpcshare.shares.journal import read_head
from rpcshare.shares.legacy_layout import read_legacy
from rpcshare.shares.objects import Head, Visibility
from rpcshare.shares.page import Query, Reach, RowPage
from rpcshare.shares.projection import IndexLag, Projection
from rpcshare.shares.search import Hit, SearchPage, SearchSettings, temporary_index
from rpcshare.shares.search_query import SearchQuery
from rpcshare.shares.search_turns import SearchTurns, at_round_times
from rpcshare.shares.syncdata import Item
from rpcshare.shares.usage import Usage
from rpcshare.storage import ObjectStore

__all__ = ["ShareListing"]

_HEADS_AT_ONCE = 16
_PATIENCE, _PATIENCE_AT_FIRST = 2.0, 60.0  # seconds that a listing waits for what is not indexed yet


class ShareListing:
    """The catalogue and the search index of one node. Needs a running event loop.

    Every operation raises :class:`~rpcshare.errors.ShareError`: STORAGE_UNAVAILABLE when the store or the
    database fails, INVALID_ARGUMENT when a query takes too long.
    """

    def __init__(
        self,
        store: ObjectStore,
        broadcaster: Broadcaster,
        *,
        is_shared: bool,
        clock: Callable[[], int],
        activity: Activity,
        find_open: Callable[[str], WatchedShare | None],
        search: SearchSettings | None,
    ) -> None:
        """List the shares in ``store``.

        Args:
            store: where they are. Not closed.
            broadcaster: tells other nodes of rows, where each has a database of its own. Not closed.
            is_shared: whether other nodes write to ``store``.
            clock: returns the time in milliseconds since the epoch.
            activity: counts failures of the store.
            find_open: returns a share that is in memory.
            search: the database to keep up to date; None: one that ends with the service, made when somebody
                lists or searches.
        """
        self._store = store
        self._clock = clock
        self._activity = activity
        self._search = search or temporary_index()
        self._projection = Projection(
            store,
            clock,
            self._search.opened,
            find_open=find_open,
            compare_every=self._search.compare_every,
            compares_first=is_shared and self._search.is_temporary,
            patience=_PATIENCE if search is not None else _PATIENCE_AT_FIRST,
            waits=self._search.waits,
            is_lazy=self._search.is_temporary,
            on_written=self._tell_of_rows,
        )
        self._news: CatalogueNews | None = None
        if self._search.is_of_node:
            self._news = CatalogueNews(broadcaster, self._projection)
        self._turns = SearchTurns()

    async def page(self, query: Query) -> RowPage:
        """Return what a listing shows: this node's syncs at once, those of others within a second."""
        try:
            with storing(self._activity):
                is_complete = await self._projection.caught_up()
            unwritten = await self._projection.rows.unwritten()
            index = await self._projection.index()
            async with at_round_times(wanted=bool(query.text) and query.reach.owners is not None):
                page = await index.catalogue.page(query, self._clock(), unwritten)
        except QueryTooLongError as exc:
            raise search_too_long() from exc
        except DatabaseError as exc:
            raise listing_unavailable(exc) from exc
        return msgspec.structs.replace(page, is_complete=is_complete)

    async def usage(self, owner: str) -> tuple[Usage, Usage]:
        """Return what the shares of an owner take, and those of its organization together.

        What this node has acknowledged counts at once, what others have within a second.

        Raises:
            DatabaseError: it failed.
        """
        unwritten = self._projection.rows.unwritten_sizes()
        return await (await self._projection.index()).catalogue.usage(owner, unwritten)

    async def search(self, query: SearchQuery, reach: Reach) -> SearchPage:
        """Return what is found in the shares that are within ``reach``."""
        try:
            with storing(self._activity):
                is_complete = await self._projection.caught_up()
            index = await self._projection.index()
            is_own = reach.owners is not None
            async with at_round_times(wanted=is_own), self._turns.turn(reach.owners):
                found, has_more = await index.search(query, reach, self._clock())
        except QueryTooLongError as exc:
            raise search_too_long() from exc
        except DatabaseError as exc:
            raise search_unavailable(exc) from exc
        with storing(self._activity):
            live = await self._live_of({hit.share_id: hit.generation for hit in found}, reach)
        hits = [
            Hit(
                share_id=hit.share_id,
                title=hit.title,
                message_id=hit.message_id,
                part_id=hit.part_id,
                snippet=hit.snippet,
                time=hit.time,
            )
            for hit in found
            if hit.share_id in live
        ]
        cursor = str(query.start + query.limit) if has_more else None
        return SearchPage(hits=hits, cursor=cursor, indexing=not is_complete)

    async def _live_of(self, generations: dict[str, str], reach: Reach) -> set[str]:
        """Return which shares are there, and within reach still: the index may be behind."""
        ids = list(generations)
        live: set[str] = set()
        for start in range(0, len(ids), _HEADS_AT_ONCE):
            some = ids[start : start + _HEADS_AT_ONCE]
            for share_id, found in zip(
                some, await asyncio.gather(*(read_head(self._store, each) for each in some)), strict=True
            ):
                head = found.head if found is not None else await self._older_head(share_id)
                if head is not None and self._is_found(head, generations[share_id], reach):
                    live.add(share_id)
                else:
                    self._projection.touch(share_id)
        return live

    async def _older_head(self, share_id: str) -> Head | None:
        older = await read_legacy(self._store, share_id)
        return older.head if older is not None else None

    def _is_found(self, head: Head, generation: str, reach: Reach) -> bool:
        is_live = not head.deleted and head.generation == generation
        is_for_members = head.visibility is Visibility.ORGANIZATION
        is_listed = reach.has(head.owner, is_for_members=is_for_members)
        return is_live and is_listed and not head.has_expired(self._clock())

    def lag(self) -> IndexLag:
        """Return how far the database is behind."""
        return self._projection.lag()

    async def warm_up(self) -> None:
        """Open the database, and have ready what the first listing would wait for. Does not raise."""
        with suppress(DatabaseError):  # whoever lists, or indexes, is told
            await (await self._projection.index()).warm_up()

    def start(self) -> None:
        """Begin to compare catalogue and search index with the store, in the background."""
        self._projection.start()

    async def close(self) -> None:
        """Write what waits, and let go of the database. No call may follow."""
        if self._news is not None:
            self._news.close()
        await self._projection.close()
        self._search.close()

    # What became of open shares

    def changed(self, share: WatchedShare, items: Iterable[Item] | None, *, by_this_node: bool) -> None:
        """Take note that a share has new ``items``; None: any may have changed."""
        self._projection.changed(share, items, by_this_node=by_this_node)

    def settings_changed(self, share: WatchedShare) -> None:
        """Take note that the settings of a share are others."""
        self._projection.settings_changed(share)

    def ended(self, share_id: str) -> None:
        """Take note that a share is deleted."""
        self._projection.ended(share_id)

    def _tell_of_rows(self, share_ids: list[str]) -> None:
        if self._news is not None:
            self._news.tell(share_ids)
