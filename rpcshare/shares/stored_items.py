"""Items as log entries and snapshots are read: what :mod:`~rpcshare.shares.entry_text` has written."""

from collections.abc import Iterable, Sequence

import msgspec

from rpcshare.shares.syncdata import Item, Kind
from rpcshare.storage import StoreError

__all__ = ["StoredItem", "restored"]


class StoredItem(msgspec.Struct):
    """An :class:`Item` in a body, as :func:`write_items` writes it."""

    kind: Kind = msgspec.field(name="type")
    keys: list[msgspec.Raw] = []
    values: list[msgspec.Raw] = []
    """The bodies; of diffs, only those that the share did not have yet."""
    order: list[int] = []
    """Of each diff, its place among the distinct diffs of the share, new ones counted behind."""
    quoted: list[int] = []
    """Where in ``values`` (and ``keys``) the JSON text is inside a string. It holds half of a
    surrogate pair, at which msgspec would refuse the whole body."""


def restored(items: Iterable[StoredItem], distinct: Sequence[bytes], new: list[bytes]) -> tuple[Item, ...]:
    """Return ``items`` as they were written.

    Args:
        items: from a body.
        distinct: the distinct diffs of the share, without this body.
        new: gathers those that ``distinct`` lacks, over a whole body.

    Raises:
        StoreError: they do not fit the share.
    """
    try:
        return tuple(_restored_item(stored, distinct, new) for stored in items)
    except (IndexError, ValueError, msgspec.DecodeError) as exc:
        raise StoreError("the store holds a log entry that does not fit its share") from exc


def _restored_item(stored: StoredItem, distinct: Sequence[bytes], new: list[bytes]) -> Item:
    bodies = [bytes(value) for value in stored.values]
    keys = [bytes(key) for key in stored.keys] or [b""] * len(bodies)
    for place in stored.quoted:
        bodies[place] = _unquote(bodies[place])
        if stored.keys:
            keys[place] = _unquote(keys[place])
    if stored.kind is Kind.DIFF:
        new += bodies
        known = len(distinct)
        bodies = [distinct[n] if n < known else new[n - known] for n in stored.order]
        keys = [b""] * len(bodies)
    return Item(stored.kind, tuple(zip(keys, bodies, strict=True)))


def _unquote(text: bytes) -> bytes:
    return msgspec.json.decode(text, type=str).encode()
