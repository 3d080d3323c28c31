"""The text of log entries and snapshots, which consist of hardly anything but items.

Items are written as the texts that they are already, and a body is compressed as it is put together: a large
one is never in memory a second time. It is compiled: every sync becomes an entry.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import msgspec

from rpcshare import jsontext
from rpcshare.shares.items import Item, Kind

__all__ = ["VERSION", "LoggedSync", "Piece", "Text", "encode_entry", "write_items"]

VERSION: Final = 1

_DIFF: Final = Kind.DIFF
_SESSION: Final = Kind.SESSION
_OPENINGS: Final = {kind: b'{"type":"%b","values":[' % kind.encode() for kind in Kind}
_BACKSLASH: Final = ord("\\")
_TEXTS_AT_ONCE: Final = 128


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


class LoggedSync:
    """The items of one sync, and when it was made, in milliseconds since the epoch."""

    __slots__ = ("at", "items", "label")

    def __init__(self, at: int, items: tuple[Item, ...], label: str = "") -> None:
        self.at = at
        self.items = items
        self.label = label
        """Tells it from all others, where several nodes might write it."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LoggedSync):
            return False
        return self.at == other.at and self.items == other.items and self.label == other.label

    def __hash__(self) -> int:
        return hash((self.at, self.items))


def encode_entry(entry_id: str, syncs: Iterable[LoggedSync], numbers: Mapping[bytes, int]) -> Text:
    """Return the body of a log entry.

    Args:
        entry_id: unique to this entry.
        syncs: what it holds.
        numbers: the place of each distinct diff of the share, with all entries before applied.
    """
    new: dict[bytes, int] = {}
    pieces: list[Piece] = [b'{"v":%d,"id":"%b","syncs":[' % (VERSION, entry_id.encode())]
    opening = b'{"at":%d,"items":'
    for sync in syncs:
        pieces.append(opening % sync.at)
        write_items(pieces, sync.items, numbers, new)
        if sync.label:
            pieces.append(b',"label":"%b"' % sync.label.encode())
        opening = b'},{"at":%d,"items":'
    pieces.append(b"}]}" if len(pieces) > 1 else b"]}")
    return Text(pieces)


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
        kind = item.kind
        bodies = [value[1] for value in item.values]
        keys: list[bytes] = []
        order: list[int] = []
        if kind is _DIFF:
            bodies = _numbered(bodies, numbers, new, order)
        elif kind is not _SESSION:
            keys = [value[0] for value in item.values]
        quoted = [place for first, run in _runs(bodies) for place in _with_surrogate(first, run)]
        for place in quoted:
            bodies[place] = _quote(bodies[place])
            if keys:
                keys[place] = _quote(keys[place])
        pieces += (opening, _OPENINGS[kind], bodies)
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


def _quote(text: bytes) -> bytes:
    return jsontext.encode(text.decode())
