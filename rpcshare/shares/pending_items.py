"""Items of a share that are to be indexed, once they rest."""

from collections.abc import Iterable
from time import monotonic
from typing import NamedTuple

from rpcshare.shares.items import Item, Kind

__all__ = ["PendingItems"]

_RESTS_AFTER = 0.3  # seconds: what has not changed for so long
_WAITS_AT_MOST = 5.0  # seconds, for an item that never rests
_AT_ONCE = 1000  # items of a share
_MAX_ITEMS = 20_000  # that are remembered of a share; of more, all are looked at


class _Touched(NamedTuple):
    entry: int
    """The first that has changed it."""
    first_at: float
    last_at: float


_Items = dict[tuple[Kind, bytes], _Touched]


class PendingItems:
    """What of a share is to be indexed."""

    __slots__ = ("base", "items", "since")

    def __init__(self, base: int, items: _Items | None, since: float | None = None) -> None:
        self.since = monotonic() if since is None else since  # when the first of it was heard of
        self.base = base  # the entry of which all must be in the index
        self.items = items  # None: all

    def take(self, entry: int, items: Iterable[Item]) -> None:
        """Take in the items of an entry."""
        known, now = self.items, monotonic()
        if known is None:
            return
        for item in items:
            if item.kind is Kind.MODEL:
                continue
            values = item.values if item.kind in (Kind.MESSAGE, Kind.PART) else item.values[:1]
            if len(known) + len(values) > _MAX_ITEMS:
                # Hundreds of thousands in one sync would take their time here, before it is answered.
                self.items = None
                return
            for key, _ in values:
                before = known.get((item.kind, key))
                first = (entry, now) if before is None else before[:2]
                known[item.kind, key] = _Touched(*first, now)

    def add_newer(self, newer: "PendingItems") -> None:
        """Take in what has come meanwhile."""
        self.since = min(self.since, newer.since)
        if self.items is None or newer.items is None:
            self.items = None
            return
        self.items = {
            key: touched if (old := self.items.get(key)) is None else _Touched(*old[:2], touched.last_at)
            for key, touched in (self.items | newer.items).items()
        }

    def resting(self, *, is_last: bool) -> tuple[list[tuple[Kind, bytes]], "_Items"]:
        """Return the items that rest, at most so many as are indexed at once, and the others."""
        now = monotonic()
        resting: list[tuple[Kind, bytes]] = []
        restless: _Items = {}
        for key, touched in (self.items or {}).items():
            rests = (
                is_last or now - touched.last_at >= _RESTS_AFTER or now - touched.first_at >= _WAITS_AT_MOST
            )
            if rests and (is_last or len(resting) < _AT_ONCE):
                resting.append(key)
            else:
                restless[key] = touched
        return resting, restless
