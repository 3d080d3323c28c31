"""Items in the bodies of log entries and snapshots, which consist of hardly anything else.

They are written as the texts that they are already, and a body is compressed as it is put together: a large
one is never in memory a second time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from rpcshare import jsontext
from rpcshare.shares.syncdata import Item, Kind
from rpcshare.storage import StoreError

__all__ = ["Piece", "StoredItem", "Text", "restored", "write_items"]

_KEYED = frozenset({Kind.MESSAGE, Kind.PART, Kind.MODEL})
_OPENINGS = {kind: b'{"type":"%b","values":[' % kind.encode() for kind in Kind}
_BACKSLASH = ord("\\")
_TEXTS_AT_ONCE = 128

Piece: TypeAlias = bytes | list[bytes]
"""Of JSON text: some of it, or several texts, to be joined by commas."""


class Text:
    """JSON text in pieces."""

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces
        self._size = sum(map(_size, pieces))

    def __len__(self) -> int:
        """How many bytes it has."""
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts())

    def parts(self) -> Iterator[bytes]:
        """Yield it in parts of some length, most of them."""
        gathered: list[bytes] = []
        for piece in self._pieces:
            if isinstance(piece, bytes):
                gathered.append(piece)
            elif len(piece) < _TEXTS_AT_ONCE:
                gathered.append(b",".join(piece))
            else:
                yield b"".join(gathered)
                gathered = []
                for first, run in _runs(piece):
                    yield b"," + b",".join(run) if first else b",".join(run)
            if len(gathered) >= _TEXTS_AT_ONCE:
                yield b"".join(gathered)
                gathered = []
        yield b"".join(gathered)


def _size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else sum(map(len, piece)) + max(len(piece) - 1, 0)


def _runs(texts: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield texts some at a time, with the place of the first."""
    for first in range(0, len(texts), _TEXTS_AT_ONCE):
        yield first, texts[first : first + _TEXTS_AT_ONCE]


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


def write_items(
    pieces: list[Piece], items: Iterable[Item], numbers: Mapping[bytes, int], new: dict[bytes, int]
) -> None:
    """Add to ``pieces`` the list of ``items``, each as a :class:`StoredItem`.

    Args:
        pieces: of JSON text.
        items: which.
        numbers: the place of each distinct diff of the share, without this body.
        new: gathers the diffs that ``numbers`` lacks, over a whole body.
    """
    opening = b"["
    for item in items:
        bodies = [body for _, body in item.values]
        keys = [key for key, _ in item.values] if item.kind in _KEYED else []
        order: list[int] = []
        if item.kind is Kind.DIFF:
            bodies = _numbered(bodies, numbers, new, order)
        quoted = [place for first, run in _runs(bodies) for place in _with_surrogate(first, run)]
        for place in quoted:
            bodies[place] = _quote(bodies[place])
            if keys:
                keys[place] = _quote(keys[place])
        pieces += (opening, _OPENINGS[item.kind], bodies)
        if keys:
            pieces += (b'],"keys":[', keys)
        # Of these lists, too, the bracket that closes them comes with what follows.
        if order:
            pieces += (b'],"order":', msgspec.json.encode(order)[:-1])
        if quoted:
            pieces += (b'],"quoted":', msgspec.json.encode(quoted)[:-1])
        pieces.append(b"]}")
        opening = b","
    pieces.append(b"[]" if opening == b"[" else b"]")


def _with_surrogate(first: int, texts: list[bytes]) -> list[int]:
    """Return the places of texts that seem to have half of a surrogate pair, counted from ``first``."""
    # All are searched together, and first for one byte, which is many times as fast as for three.
    whole = texts[0] if len(texts) == 1 else b"".join(texts)
    if _BACKSLASH not in whole or b"\\ud" not in whole:
        return []
    return [place for place, text in enumerate(texts, first) if b"\\ud" in text]


def _numbered(
    diffs: Iterable[bytes], numbers: Mapping[bytes, int], new: dict[bytes, int], order: list[int]
) -> list[bytes]:
    """Return those of ``diffs`` that nobody has yet, and add the places of all to ``order``."""
    unknown = []
    for body in diffs:
        number = numbers.get(body, new.get(body))
        if number is None:
            number = new[body] = len(numbers) + len(new)
            unknown.append(body)
        order.append(number)
    return unknown


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


def _quote(text: bytes) -> bytes:
    return jsontext.encode(text.decode())


def _unquote(text: bytes) -> bytes:
    return msgspec.json.decode(text, type=str).encode()
