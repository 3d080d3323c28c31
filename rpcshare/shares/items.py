"""What a batch of SyncData becomes once it is checked: values of each kind, as bytes.

They stay so in the log, in memory and in every event. It is compiled, as is what handles the items of every
sync.
"""

from collections.abc import Iterable
from enum import StrEnum

from rpcshare.shares.batch_validation import Value

__all__ = ["Batch", "Item", "Kind", "batch_of"]


class Kind(StrEnum):
    """The ``type`` of a SyncData."""

    SESSION = "session"
    MESSAGE = "message"
    PART = "part"
    DIFF = "session_diff"
    MODEL = "model"


class Item:
    """Values of one kind, in order; not to be changed.

    One SyncData of a kind whose data is a list makes one Item; of the others, adjacent ones share one.
    """

    __slots__ = ("kind", "size", "values")

    def __init__(self, kind: Kind, values: tuple[Value, ...], size: int = -1) -> None:
        """Hold ``values``; their ``size`` is counted if it is not known."""
        self.kind = kind
        self.values = values
        """(key, body) of each: the JSON text of its identity among its kind, and of all of it.

        The key of a message and of a part is its ``id``; of a model ``[providerID or null, id]``. A session
        has no other beside it and a FileDiff no identity: their key is empty.
        """
        if size < 0:
            size = 0
            for value in values:
                size += len(value[0]) + len(value[1])
        self.size = size
        """Bytes of all keys and bodies."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item) and self.kind is other.kind and self.values == other.values

    def __hash__(self) -> int:
        return hash((self.kind, self.values))

    def __repr__(self) -> str:
        """Leave out the values, which are what users wrote."""
        return f"{type(self).__name__}({self.kind}, <{len(self.values)} values>)"


class Batch:
    """What one sync carries: applied whole or not at all."""

    __slots__ = ("items", "size")

    def __init__(self, items: tuple[Item, ...], size: int) -> None:
        self.items = items
        self.size = size
        """Bytes of all keys and bodies."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and self.items == other.items

    def __hash__(self) -> int:
        return hash(self.items)


def batch_of(items: Iterable[Item]) -> Batch:
    """Return the batch that consists of ``items``."""
    held = tuple(items)
    size = 0
    for item in held:
        size += item.size
    return Batch(held, size)
