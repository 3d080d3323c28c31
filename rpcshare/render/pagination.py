"""Which part of a long session is on one page: where it begins, and how much fits."""

import re

import msgspec

from rpcshare.render.messages import anchor_of
from rpcshare.shares.outline import Entry, Transcript

__all__ = ["Chunk", "Place", "Run", "chunk_of", "place_of"]

MAX_PARTS = 50
MAX_WEIGHT = 60_000  # bytes, of each part no more than are drawn
_PART_WEIGHT = 300  # bytes, of the smallest
_PART_DRAWN = 12_000  # bytes, of the largest

_CURSOR = re.compile(r"(?P<anchor>[A-Za-z0-9_-]{1,100})(?:\.(?P<part>[0-9]{1,7}))?")


class Place(msgspec.Struct, frozen=True):
    """Before which part of which message a page begins, or ends."""

    entry: int
    part: int = 0


class Run(msgspec.Struct, frozen=True):
    """Parts of one message that follow each other: from ``first`` until before ``last``."""

    index: int
    """Of the message."""
    entry: Entry
    first: int
    last: int


class Chunk(msgspec.Struct, frozen=True):
    """What one page shows."""

    runs: list[Run]
    this: str
    """The cursor of its beginning; empty for the start of the session."""
    earlier: str
    """The cursor behind which comes what is before it; empty for nothing."""
    later: str
    """The cursor of what comes next; empty for nothing."""
    later_messages: int
    """How many messages begin behind it."""


def place_of(transcript: Transcript, cursor: str) -> Place | None:
    """Return where ``cursor`` (``ANCHOR`` or ``ANCHOR.PART``) is, or None if it is nowhere."""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        return None
    index = _places(transcript).get(match["anchor"])
    if index is None:
        return None
    return Place(index, min(int(match["part"] or 0), len(transcript.entries[index].parts)))


def chunk_of(transcript: Transcript, start: Place | None = None, end: Place | None = None) -> Chunk:
    """Return the chunk that begins at ``start`` or, without one, that ends before ``end``."""
    entries = transcript.entries
    if start is None and end is not None:
        start = _start_of_chunk_until(entries, end)
    start = start or Place(0)
    runs: list[Run] = []
    room, parts = MAX_WEIGHT, MAX_PARTS
    index, first = start.entry, start.part
    bound = end or Place(len(entries))
    while index < len(entries) and (index, first) < (bound.entry, bound.part) and room > 0 and parts > 0:
        entry = entries[index]
        room -= _PART_WEIGHT
        last = first
        stop = min(len(entry.parts), bound.part) if index == bound.entry else len(entry.parts)
        while last < stop and parts > 0 and (room > 0 or last == first):
            room -= _weight(entry, last)
            parts -= 1
            last += 1
        runs.append(Run(index, entry, first, last))
        if last < len(entry.parts):
            first = last
            break
        index, first = index + 1, 0
    return Chunk(
        runs=runs,
        this=_cursor(entries, start) if start != Place(0) else "",
        earlier=_cursor(entries, start) if start != Place(0) else "",
        later=_cursor(entries, Place(index, first)) if index < len(entries) else "",
        later_messages=max(0, len(entries) - index - (first > 0)),
    )


def _start_of_chunk_until(entries: tuple[Entry, ...], end: Place) -> Place:
    room, parts = MAX_WEIGHT, MAX_PARTS
    index, part = end.entry, end.part
    while room > 0 and parts > 0:
        if part > 0:
            part -= 1
            room -= _weight(entries[index], part)
            parts -= 1
        elif index > 0:
            room -= _PART_WEIGHT
            index -= 1
            part = len(entries[index].parts)
        else:
            break
    if part and part == len(entries[index].parts):
        return Place(index + 1)
    return Place(index, part)


def _weight(entry: Entry, part: int) -> int:
    return _PART_WEIGHT + min(len(entry.parts[part].body), _PART_DRAWN)


def _cursor(entries: tuple[Entry, ...], place: Place) -> str:
    if place.entry >= len(entries):
        return ""
    anchor = anchor_of(entries[place.entry])
    return f"{anchor}.{place.part}" if place.part else anchor


def _places(transcript: Transcript) -> dict[str, int]:
    places: dict[str, int] | None = transcript.__dict__.get("places")
    if places is None:
        places = {anchor_of(entry): index for index, entry in enumerate(transcript.entries)}
        transcript.__dict__["places"] = places
    return places
