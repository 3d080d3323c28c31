"""From what a caller sends to a batch: at once if it is small, else in time slices.

Most syncs carry a few items, and are checked, redacted and encoded before anything else happens. One of
16 MiB may have 400,000 items, or one that is as large: that takes seconds, in which everybody else is served.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec

from rpcshare import jsontext
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.long_work import LongWork
from rpcshare.shares.failures import share_too_large, too_many_items
from rpcshare.shares.redaction import redact_batch, redact_items
from rpcshare.shares.syncdata import LISTS, Batch, Item, batch_of, checked_items, parse_batch

__all__ = ["BatchParser", "is_large"]

_LARGE_TEXT, _LARGE_LIST = 64 * 1024, 500  # bytes; elements
_HUGE_TEXT, _HUGE_LIST = 2**20, 10_000
_STEP_TEXT, _STEP_LIST = 32 * 1024, 64  # what is done between two pauses
_IN_THREAD_FROM = 256 * 1024  # bytes of one element

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


def is_large(data: object) -> bool:
    """Whether to check ``data`` takes so long that it is done in time slices."""
    return _exceeds(data, _LARGE_TEXT, _LARGE_LIST)


def _exceeds(data: object, text: int, elements: int) -> bool:
    if type(data) is msgspec.Raw:
        return memoryview(data).nbytes > text
    return type(data) is list and len(data) > elements


class BatchParser:
    """Makes batches of data, which is what a JSON decoder makes or, as :class:`msgspec.Raw`, JSON text.

    Its methods raise :class:`~rpcshare.errors.ShareError`: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
    """

    def __init__(self, *, max_size: int, max_items: int, redact: bool) -> None:
        """Take batches of at most ``max_size`` bytes and ``max_items`` values; 0: of any number."""
        self._max_size = max_size
        self._max_items = max_items
        self._redact = redact
        # What is made of a batch takes ten times its memory until it is stored.
        self._huge = asyncio.Semaphore(1)

    @asynccontextmanager
    async def room_for(self, data: object) -> AsyncIterator[None]:
        """Wait until there is memory for the batch of ``data``, and have that until it is stored."""
        if not _exceeds(data, _HUGE_TEXT, _HUGE_LIST):
            yield
            return
        async with self._huge:
            yield

    def parse(self, data: object) -> Batch:
        """Return the batch of ``data``."""
        value = _decoded(data)
        batch = parse_batch(value, self._max_items)
        if self._redact:
            batch = redact_batch(batch)
        self._check_size(batch.size)
        return batch

    async def parse_in_slices(self, data: object) -> Batch:
        """Do what :meth:`parse` does, in time slices."""
        made = _Gathered()
        async with LongWork() as work:
            elements = _split(data)
            if elements is None:
                return self.parse(data)  # which tells what is wrong
            for start, end, size in _steps(elements):
                part = elements[start:end]
                if size < _IN_THREAD_FROM:
                    items = self._parse_part(part, start, made.count)
                else:
                    items = await work.aside(lambda: self._parse_part(part, start, made.count))  # noqa: B023
                made.add(items)
                self._check_size(made.size)
                await work.pause()
        return made.batch()

    def _parse_part(self, part: list[object], start: int, count: int) -> list[Item]:
        decoded = list(map(_decoded, part))
        room = self._max_items - count if self._max_items else -1
        if self._max_items and room < 0:
            raise too_many_items(self._max_items)
        items = checked_items(decoded, start, room, self._max_items)
        return list(redact_items(items)) if self._redact else items

    def _check_size(self, size: int) -> None:
        if 0 < self._max_size < size:
            raise share_too_large(self._max_size)


def _split(data: object) -> list[object] | None:
    """Return the elements of a list, those of JSON text as text; None if it is none."""
    if type(data) is not msgspec.Raw:
        return data if type(data) is list else None
    try:
        return list(_elements(data))
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # what msgspec cannot look through may be read all the same: see jsontext
    value = _decoded(data)
    return value if type(value) is list else None


def _decoded(data: object) -> object:
    """Return what JSON text stands for, and anything else as it is."""
    if type(data) is not msgspec.Raw:
        return data
    try:
        return jsontext.decode(bytes(data))
    except jsontext.JSONDecodeError as exc:  # such as a number of more digits than Python reads
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"data: cannot be read: {exc}") from None


def _steps(elements: list[object]) -> Iterable[tuple[int, int, int]]:
    """Yield from which element to which there is about as much to do as between two pauses, and its bytes."""
    start = size = 0
    for index, element in enumerate(elements):
        length = memoryview(element).nbytes if type(element) is msgspec.Raw else 0
        if index > start and (size + length > _STEP_TEXT or index - start >= _STEP_LIST):
            yield start, index, size
            start, size = index, 0
        size += length
    if elements:
        yield start, len(elements), size


class _Gathered:
    """Items of the parts of a batch, as those of the whole would be."""

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self._items: list[
            tuple[Item, list[Item]]
        ] = []  # of a kind whose adjacent ones share one: all of them

    def add(self, items: Iterable[Item]) -> None:
        """Add the items of the next part."""
        for item in items:
            self.count += len(item.values) or 1
            self.size += item.size
            if self._items and item.kind not in LISTS and self._items[-1][0].kind is item.kind:
                self._items[-1][1].append(item)
            else:
                self._items.append((item, []))

    def batch(self) -> Batch:
        """Return the whole."""
        return batch_of(_joined(first, others) for first, others in self._items)


def _joined(first: Item, others: list[Item]) -> Item:
    if not others:
        return first
    return Item(first.kind, tuple(value for item in (first, *others) for value in item.values))
