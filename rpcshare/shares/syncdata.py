"""What a caller sends: a batch of SyncData, checked and brought into its normal form.

A batch is a list of ``{"type", "data"}`` (PROTOCOL.md, "Data"). What is inside ``data`` is opencode's
and is kept exactly as it came; all that is looked at is what tells one item from another. Each value
is encoded once, here: from then on it is bytes, in the log, in memory and in every event.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import cached_property
from itertools import chain

import msgspec

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.checking import RefusedError, Value, checked

__all__ = ["Batch", "Item", "Kind", "json_pieces", "parse_batch"]


class Kind(StrEnum):
    """The ``type`` of a SyncData."""

    SESSION = "session"
    MESSAGE = "message"
    PART = "part"
    DIFF = "session_diff"
    MODEL = "model"


_LISTS = frozenset({Kind.DIFF, Kind.MODEL})  # kinds whose data is a list


class Item(msgspec.Struct, frozen=True, dict=True):
    """Values of one kind, in order.

    One SyncData of a kind whose data is a list makes one Item; of the others, adjacent ones share one.
    """

    kind: Kind
    values: tuple[Value, ...]
    """(key, body) of each: the JSON text of its identity among its kind, and of all of it.

    The key of a message and of a part is its ``id``; of a model ``[providerID or null, id]``. A session
    has no other beside it and a FileDiff no identity: their key is empty.
    """

    @cached_property
    def size(self) -> int:
        """Bytes of all keys and bodies."""
        return sum(map(len, chain.from_iterable(self.values)))

    def __repr__(self) -> str:
        """Leave out the values, which are what users wrote."""
        return f"{type(self).__name__}({self.kind}, <{len(self.values)} values>)"


class Batch(msgspec.Struct, frozen=True):
    """What one sync carries: applied whole or not at all."""

    items: tuple[Item, ...]
    size: int
    """Bytes of all keys and bodies."""


def json_pieces(items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the pieces of the JSON text of ``items`` as a list of SyncData."""
    opening = b"["
    for item in items:
        start = b'{"type":"%b","data":' % item.kind.encode()
        if item.kind in _LISTS:
            yield opening + start + b"["
            yield from joined(body for _, body in item.values)
            yield b"]}"
            opening = b","
            continue
        for _, body in item.values:
            yield opening + start
            yield body
            yield b"}"
            opening = b","
    yield b"[]" if opening == b"[" else b"]"


def joined(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Yield ``bodies`` with commas between them."""
    first = True
    for body in bodies:
        if not first:
            yield b","
        yield body
        first = False


def parse_batch(value: object) -> Batch:
    """Check the batch ``value`` and return its normal form.

    Raises:
        ShareError: INVALID_ARGUMENT; the message names the place, such as ``data[3].data.id``.
    """
    if type(value) is not list:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "data: must be a list of SyncData")
    try:
        gathered = checked(value)
    except RefusedError as exc:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"data{exc.place}: {exc.why}") from None
    items = tuple([Item(Kind(name), tuple(values)) for name, values in gathered])
    return Batch(items, sum(item.size for item in items))
