"""Splits data that one message cannot carry into several syncs."""

from collections.abc import Iterator, Sequence
from typing import Any

from rpcshare import jsontext
from rpcshare.client.types import SyncData

__all__ = ["sync_pieces"]

# A server takes 16 MiB and 500,000 values a message unless it is set otherwise; the wire adds to both.
_MOST_BYTES = 12 * 2**20
_MOST_VALUES = 400_000
_LEAST_VALUE = 2  # bytes of JSON, with what separates it from the next


def sync_pieces(data: Sequence[SyncData]) -> list[list[SyncData]]:
    """Return ``data`` in order, in pieces that each fit a message; a value too large for any has its own.

    Lists within ``session_diff`` and ``model`` are split as well: a share adds them value by value.
    """
    items = list(data)
    size = _size(items)
    if size is None or size <= min(_MOST_BYTES, _LEAST_VALUE * _MOST_VALUES):
        return [items]
    pieces: list[list[SyncData]] = [[]]
    taken = values = 0
    for item in _split(items):
        more, count = _size(item) or 0, _values(item)
        if pieces[-1] and (taken + more > _MOST_BYTES or values + count > _MOST_VALUES):
            pieces.append([])
            taken = values = 0
        pieces[-1].append(item)
        taken += more
        values += count
    return pieces


def _split(items: Sequence[Any]) -> Iterator[SyncData]:
    for item in items:  # whatever the caller has put there
        inner = item.get("data") if isinstance(item, dict) else None
        if not isinstance(inner, list) or len(inner) < 2 or _fits(item):
            yield item
            continue
        start = taken = values = 0
        for end, value in enumerate(inner):
            more, count = _size(value) or 0, _values(value)
            if end > start and (taken + more > _MOST_BYTES or values + count > _MOST_VALUES):
                yield {**item, "data": inner[start:end]}
                start, taken, values = end, 0, 0
            taken += more
            values += count
        yield {**item, "data": inner[start:]}


def _fits(item: SyncData) -> bool:
    return (_size(item) or 0) <= _MOST_BYTES and _values(item) <= _MOST_VALUES


def _size(value: object) -> int | None:
    """Return the length of a value as JSON; None for what is none, which the server or the codec refuses."""
    try:
        return len(jsontext.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _values(value: object) -> int:
    """Return how many values there are in a value, itself included."""
    waiting, count = [value], 0
    while waiting:
        each = waiting.pop()
        count += 1
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return count
