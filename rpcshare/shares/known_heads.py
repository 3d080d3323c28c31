"""Heads of shares, read a moment ago: links between sessions are looked up again and again."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from rpcshare.shares.journal import read_head
from rpcshare.shares.objects import Head
from rpcshare.shares.open_share import OpenShare
from rpcshare.storage import ObjectStore

__all__ = ["KnownHeads"]

_KEPT = 2000
_KEPT_FOR = 3.0  # seconds for which a share that has become private may still be linked


class KnownHeads:
    """Reads heads, each at most once in some seconds."""

    def __init__(self, store: ObjectStore, find_open: Callable[[str], OpenShare | None]) -> None:
        """Read from ``store``, but of shares that ``find_open`` returns take what they have."""
        self._store = store
        self._find_open = find_open
        self._known: OrderedDict[str, tuple[float, Head | None]] = OrderedDict()

    async def get(self, share_id: str) -> Head | None:
        """Return the head of a share, which may be deleted; None: there is none. Raises StoreError."""
        share = self._find_open(share_id)
        if share is not None and not share.is_ended:
            return share.head
        now = monotonic()
        known = self._known.get(share_id)
        if known is not None and now - known[0] < _KEPT_FOR:
            return known[1]
        found = await read_head(self._store, share_id)
        head = found.head if found is not None else None
        self._known[share_id] = now, head
        self._known.move_to_end(share_id)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return head
