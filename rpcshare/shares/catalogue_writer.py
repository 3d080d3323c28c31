"""Writes the rows of open shares into the catalogue, behind their syncs, and tells other nodes.

A row that has not been written yet is listed all the same: on this node, a listing shows a sync at once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from rpcshare.database import DatabaseError
from rpcshare.shares.catalogue_row import CatalogueRow, Figures, FiguresSource
from rpcshare.shares.context import WatchedShare
from rpcshare.shares.usage import OwnedSize

if TYPE_CHECKING:
    from rpcshare.shares.search_index import SearchIndex

__all__ = ["CatalogueWriter"]

_TICK = 0.25  # seconds between two times of writing
_AT_ONCE = 200  # rows of a transaction
_FEW = 100  # messages, which are counted on the spot
_COUNTING_SHARE = 20  # of the time: counting those of a share takes no larger part
_KNOWN = 1000  # shares whose figures are remembered
_WAITS_FOR = 2.0  # seconds, where more rows are unwritten than are merged into a page
_MERGED = 500


class _Counted(NamedTuple):
    generation: str
    entry: int
    figures: Figures
    next_at: float


class CatalogueWriter:
    """What this node knows of shares before the database does. Needs a running event loop."""

    def __init__(
        self,
        opened: Callable[[], Awaitable["SearchIndex"]],
        on_written: Callable[[list[str]], None],
        on_failure: Callable[[list[str]], None],
    ) -> None:
        """Write into the catalogue of the index that ``opened`` returns.

        Args:
            opened: may raise DatabaseError.
            on_written: hears of ids whose rows the database has now.
            on_failure: hears of ids whose rows could not be written, and are not tried again.
        """
        self._opened = opened
        self._on_written = on_written
        self._on_failure = on_failure
        self._unwritten: dict[str, WatchedShare | None] = {}  # None: it is gone
        self._being_written: dict[str, WatchedShare | None] = {}
        self._counted: OrderedDict[str, _Counted] = OrderedDict()
        self._worker: asyncio.Task[None] | None = None
        self._is_waiting = False

    def wait(self) -> None:
        """Write nothing until :meth:`begin` is called."""
        self._is_waiting = True

    def begin(self) -> None:
        """Write what is unwritten, from now on."""
        self._is_waiting = False
        if self._unwritten:
            self._start()

    def changed(self, share: WatchedShare) -> None:
        """Hear that an open share is to have another row."""
        self._unwritten[share.share_id] = share
        self._start()

    def gone(self, share_id: str) -> None:
        """Hear that a share is deleted."""
        self._counted.pop(share_id, None)
        self._unwritten[share_id] = None
        self._start()

    @property
    def is_done(self) -> bool:
        """Whether all rows are written."""
        return not (self._unwritten or self._being_written)

    async def unwritten(self) -> dict[str, CatalogueRow | None]:
        """Return the rows that the database does not have, maybe, and None for what is gone."""
        if len(self._unwritten) > _MERGED and self._worker is not None:
            await asyncio.wait([self._worker], timeout=_WAITS_FOR)
        return {
            share_id: None if share is None or share.is_ended else self._row_now(share)
            for share_id, share in (self._being_written | self._unwritten).items()
        }

    def unwritten_sizes(self) -> dict[str, OwnedSize | None]:
        """Return whose and how large shares are whose rows may be unwritten; None: it is gone."""
        return {
            share_id: None
            if share is None or share.is_ended
            else OwnedSize(share.head.owner, share.state.content.size)
            for share_id, share in (self._being_written | self._unwritten).items()
        }

    async def row(self, share: WatchedShare) -> tuple[CatalogueRow, int]:
        """Return the row of a share, and up to which entry its figures are counted."""
        counted = await self._count(share)
        return CatalogueRow.of(share.head, share.state, counted.figures), counted.entry

    async def write(self) -> None:
        """Write all rows that are unwritten. Does not raise."""
        while self._unwritten and not self._being_written:
            some = list(self._unwritten.items())[:_AT_ONCE]
            for share_id, _ in some:
                del self._unwritten[share_id]
            self._being_written = dict(some)
            ids = list(self._being_written)
            try:
                live = [share for _, share in some if share is not None and not share.is_ended]
                gone = [share_id for share_id, share in some if share is None]
                rows = [(await self.row(share))[0] for share in live]
                await (await self._opened()).catalogue.put(rows, gone)
            except DatabaseError:
                self._on_failure(ids)
            else:
                self._on_written(ids)
            finally:
                self._being_written = {}

    async def close(self) -> None:
        """Stop writing."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
            self._worker = None

    def _start(self) -> None:
        if self._worker is None and not self._is_waiting:
            self._worker = asyncio.get_running_loop().create_task(self._write_behind())

    async def _write_behind(self) -> None:
        try:
            while self._unwritten:
                await asyncio.sleep(_TICK)
                await self.write()
        finally:
            self._worker = None

    def _row_now(self, share: WatchedShare) -> CatalogueRow:
        known = self._counted.get(share.share_id)
        if known is None or known.generation != share.head.generation or known.entry != share.entry:
            source = FiguresSource(share.state)
            if len(source) <= _FEW:
                return CatalogueRow.of(share.head, share.state, source.counted())
        return CatalogueRow.of(share.head, share.state, Figures() if known is None else known.figures)

    async def _count(self, share: WatchedShare) -> _Counted:
        """Return the figures of a share, counted anew if that has not just been done at length."""
        known, generation, now = self._counted.get(share.share_id), share.head.generation, monotonic()
        if (
            known is not None
            and known.generation == generation
            and (known.entry == share.entry or now < known.next_at)
        ):
            return known
        entry, source = share.entry, FiguresSource(share.state)
        figures = source.counted() if len(source) <= _FEW else await asyncio.to_thread(source.counted)
        took = monotonic() - now
        # A few messages are counted as often as they change: that is a part of what writing a row costs.
        next_at = now if len(source) <= _FEW else now + took * _COUNTING_SHARE
        counted = self._counted[share.share_id] = _Counted(generation, entry, figures, next_at)
        self._counted.move_to_end(share.share_id)
        if len(self._counted) > _KNOWN:
            self._counted.popitem(last=False)
        return counted
