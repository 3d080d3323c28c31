"""What a caller sends: a batch of SyncData, checked and brought into its normal form.

A batch is a list of ``{"type", "data"}`` (PROTOCOL.md, "Data"). What is inside ``data`` is opencode's
and is kept exactly as it came; all that is looked at is what tells one item from another. Each value
is encoded once, here: from then on it is bytes, in the log, in memory and in every event.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from rpcshare import jsontext
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.batch_validation import RefusedError, TooManyError, Value, checked
from rpcshare.shares.failures import too_many_items
from rpcshare.shares.items import Batch, Item, Kind, batch_of

__all__ = [
    "LISTS",
    "PART",
    "Batch",
    "Item",
    "Kind",
    "batch_of",
    "bodies_size",
    "checked_items",
    "joined",
    "json_elements",
    "json_lines",
    "json_lines_size",
    "json_pieces",
    "json_pieces_of",
    "json_size",
    "parse_batch",
    "text_parts",
]

_NUMBER = re.compile(r"\[0\]\.data\[(\d+)\]")

PART = 64 * 1024
"""Bytes of a text that are made and sent at a time."""


LISTS = frozenset({Kind.DIFF, Kind.MODEL})
"""Kinds whose data is a list."""


def json_pieces(items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the pieces of the JSON text of ``items`` as a list of SyncData."""
    return json_pieces_of((item.kind, map(itemgetter(1), item.values)) for item in items)


def json_pieces_of(lists: Iterable[tuple[Kind, Iterable[bytes]]]) -> Iterator[bytes]:
    """Yield what :func:`json_pieces` does of items whose kinds and bodies are ``lists``."""
    opening = b"["
    for kind, bodies in lists:
        start = b'{"type":"%b","data":' % kind.encode()
        if kind in LISTS:
            yield opening + start + b"["
            yield from joined(bodies)
            yield b"]}"
            opening = b","
            continue
        for body in bodies:
            yield opening + start
            yield body
            yield b"}"
            opening = b","
    yield b"[]" if opening == b"[" else b"]"


def json_lines(items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the pieces of the JSON texts of ``items`` as SyncData, one a line."""
    for item in items:
        start = b'{"type":"%b","data":' % item.kind.encode()
        if item.kind in LISTS:
            yield start + b"["
            yield from joined(map(itemgetter(1), item.values))
            yield b"]}\n"
            continue
        for _, body in item.values:
            yield start
            yield body
            yield b"}\n"


def json_lines_size(items: Sequence[Item]) -> int:
    """Return how many bytes the pieces of :func:`json_lines` have."""
    # The brackets and commas of the list are two more than its elements, and a line has an end.
    return json_size(items) - 1 if items else 0


def json_elements(items: Iterable[Item]) -> Iterator[jsontext.InParts]:
    """Yield the text of each SyncData of ``items``, or, if that is long, the texts of its members."""
    for item in items:
        kind = jsontext.encode(item.kind)
        if item.kind in LISTS:
            yield {"type": kind, "data": [body for _, body in item.values]}
            continue
        for _, body in item.values:
            if len(body) > PART:
                yield {"type": kind, "data": body}
            else:
                yield b'{"type":%b,"data":%b}' % (kind, body)


def json_size(items: Iterable[Item]) -> int:
    """Return how many bytes the pieces of :func:`json_pieces` have."""
    elements = size = 0
    for item in items:
        count = len(item.values)
        size += bodies_size(item.values)
        around = len(b'{"type":"%b","data":}' % item.kind.encode())
        if item.kind in LISTS:
            elements += 1
            size += around + len(b"[]") + max(0, count - 1)
        else:
            elements += count
            size += around * count
    return size + len(b"[]") + max(0, elements - 1)


def bodies_size(values: Iterable[Value]) -> int:
    """Return how many bytes the bodies of ``values`` have."""
    return sum(map(len, map(itemgetter(1), values)))


def joined(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Yield ``bodies`` with commas between them."""
    first = True
    for body in bodies:
        if not first:
            yield b","
        yield body
        first = False


def text_parts(pieces: Iterable[bytes], size: int = PART) -> Iterator[bytes]:
    """Yield the text that ``pieces`` make in parts of about ``size`` bytes, and of twice that at most.

    No part begins within a character of UTF-8.
    """
    gathered: list[bytes] = []
    length = 0
    for piece in pieces:
        if length and length + len(piece) > 2 * size:
            yield b"".join(gathered)
            gathered, length = [], 0
        if len(piece) > 2 * size:
            yield from _slices(piece, size)
            continue
        gathered.append(piece)
        length += len(piece)
        if length >= size:
            yield b"".join(gathered)
            gathered, length = [], 0
    if gathered:
        yield b"".join(gathered)


def _slices(text: bytes, size: int) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        end = start + size
        while end < len(text) and text[end] & 0xC0 == 0x80:  # a byte within a character (RFC 3629)
            end += 1
        yield text[start:end]
        start = end


def parse_batch(value: object, max_items: int = 0) -> Batch:
    """Check the batch ``value``, of at most ``max_items`` values (0: any number), and return its normal form.

    Raises:
        ShareError: INVALID_ARGUMENT; the message names the place, such as ``data[3].data.id``.
            PAYLOAD_TOO_LARGE: it has more values.
    """
    if type(value) is not list:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "data: must be a list of SyncData")
    return batch_of(checked_items(value, 0, max_items or -1, max_items))


def checked_items(
    part: list[object], first: int, room: int, max_items: int, within: tuple[str, int] | None = None
) -> list[Item]:
    """Return the items of a part of a batch.

    Args:
        part: some of its elements.
        first: the number of the first of them.
        room: how many values there may be; -1: any number.
        max_items: how many a batch may have, for whoever has more.
        within: if ``part`` has some values of one list: the place of that, and the number of the first.

    Raises:
        ShareError: as :func:`parse_batch` does.
    """
    try:
        gathered = checked(part, first, room)
    except RefusedError as exc:
        place = f"data{exc.place}" if within is None else _place_within(*within, exc.place)
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{place}: {exc.why}") from None
    except TooManyError:
        raise too_many_items(max_items) from None
    return [Item(Kind(name), tuple(values)) for name, values in gathered]


def _place_within(whole: str, start: int, place: str) -> str:
    """Return a place such as ``[0].data[7].id`` of some of the values of ``whole``, as one of all of them."""
    number = _NUMBER.match(place)
    return whole if number is None else f"{whole}[{start + int(number[1])}]{place[number.end() :]}"
