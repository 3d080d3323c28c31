"""From what a caller sends to a batch: at once if it is small, else in time slices.

Most syncs carry a few items, and are checked, redacted and encoded before anything else happens. One of
16 MiB may have 400,000 items, or one that is as large: that takes seconds, in which everybody else is served.

JSON text is cut into values that stay the bytes that they are (:mod:`~rpcshare.shares.batch_text`). If
something in it is unusual or wrong, all of it is decoded, checked and encoded again.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import msgspec

from rpcshare import jsontext
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.json_values import holds_more_than
from rpcshare.jsontext import JSONText
from rpcshare.long_work import LongWork
from rpcshare.shares import batch_text
from rpcshare.shares.data_scanner import Element
from rpcshare.shares.failures import share_too_large, too_many_items
from rpcshare.shares.redaction import may_hold_credential, redact_batch, redact_items
from rpcshare.shares.syncdata import LISTS, Batch, Item, Kind, batch_of, checked_items, parse_batch

__all__ = ["BatchParser", "DataReader", "is_large"]

_LARGE_TEXT, _LARGE_LIST = 64 * 1024, 500  # bytes; elements
_HUGE_TEXT, _HUGE_LIST = 2**20, 10_000
_STEP_TEXT, _STEP_LIST = 32 * 1024, 64  # what is done between two pauses
_STEP_CUT = 64 * 1024  # the same where nothing is decoded
_IN_THREAD_FROM = 256 * 1024  # bytes of one element

MAX_VALUES = 100_000
"""How many values one message, part, diff or model may hold, if it is longer than that. It is decoded, and
looked through, in one go; nobody else is served meanwhile."""

_MAX_LIST = 3_000_000
"""How many values a list within an element may hold, if it is long and could not be cut before."""

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Cut(NamedTuple):
    """Elements that JSON text has been cut into."""

    text: bytes | memoryview
    """Of all of them."""
    until: int
    """Where the next begins; -1: they are the last."""
    items: list[Item]


class DataReader(ABC):
    """Data that is too long to be in memory."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of its text."""

    @abstractmethod
    def read(self) -> list[Element] | None:
        """Return the next of the elements; None if there are no more. Blocks.

        Raises:
            ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
        """


def is_large(data: object) -> bool:
    """Whether to check ``data`` takes so long that it is done in time slices."""
    return _exceeds(data, _LARGE_TEXT, _LARGE_LIST)


def _exceeds(data: object, text: int, elements: int) -> bool:
    if isinstance(data, JSONText):
        return data.size > text
    return len(data) > elements if type(data) is list else isinstance(data, DataReader)


class BatchParser:
    """Makes batches of data: what a JSON decoder makes, a JSONText, or a DataReader.

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
        if isinstance(data, JSONText):
            text, made = data.take(), _Gathered()
            cut = self._cut(text, 0, len(text), _most_values(data), made.count)
            if cut is not None:
                made.add(self._redacted(cut))
                self._check_size(made.size)
                return made.batch()
            data = _decoded(msgspec.Raw(text))
        return self._parse_value(data)

    def _parse_value(self, value: object) -> Batch:
        batch = parse_batch(value, self._max_items)
        if self._redact:
            batch = redact_batch(batch)
        self._check_size(batch.size)
        return batch

    async def parse_in_slices(self, data: object) -> Batch:
        """Do what :meth:`parse` does, in time slices."""
        made = _Gathered()
        async with LongWork() as work:
            if isinstance(data, DataReader):
                await self._parse_read(data, made, work)
                return made.batch()
            if isinstance(data, JSONText):
                text, most = data.take(), _most_values(data)
                if await self._parse_text(text, most, made, work):
                    return made.batch()
                made = _Gathered()
                data = _decoded(msgspec.Raw(text)) if data.is_counted else msgspec.Raw(text)
                del text
            elements = _split(data)
            if elements is None:
                return self._parse_value(_decoded(data))  # which tells what is wrong
            await self._parse_elements(elements, 0, made, work)
        return made.batch()

    async def _parse_text(
        self, text: bytes | memoryview, most: int, made: "_Gathered", work: LongWork
    ) -> bool:
        """Add the items of JSON text; return whether all of it is known."""
        at = 0
        while at >= 0:
            cut = self._cut(text, at, _STEP_CUT, most, made.count)
            if cut is None:
                return False
            is_long = len(cut.text) >= _IN_THREAD_FROM  # one of its elements is
            made.add(await work.aside(partial(self._redacted, cut)) if is_long else self._redacted(cut))
            self._check_size(made.size)
            at = cut.until
            await work.pause()
        return True

    def _cut(self, text: bytes | memoryview, at: int, step: int, most: int, count: int) -> _Cut | None:
        """Cut some elements of JSON text into values; None: one of them is not known."""
        room = self._max_items - count if self._max_items else -1
        if self._max_items and room < 0:
            return None
        found = batch_text.split(text, at, room, most, step)
        if found is None:
            return None
        gathered, until = found
        items = [Item(Kind(name), tuple(values), size) for name, values, size in gathered]
        return _Cut(text[at:] if until < 0 else text[at:until], until, items)

    def _redacted(self, cut: _Cut) -> list[Item]:
        """Return the items without what looks like a credential."""
        # All of it is looked at together, and each value only if there is a reason to.
        if self._redact and may_hold_credential(bytes(cut.text)):
            return list(redact_items(cut.items))
        return cut.items

    async def _parse_read(self, data: DataReader, made: "_Gathered", work: LongWork) -> None:
        index = 0
        while (read := await work.aside(data.read)) is not None:
            short: list[object] = []
            for text, values in read:
                if values is None or len(text) < _IN_THREAD_FROM:
                    short.append(msgspec.Raw(text))
                    continue
                await self._parse_elements(short, index, made, work)
                index += len(short)
                await self._parse_list(text, values, index, made, work)
                index, short = index + 1, []
            await self._parse_elements(short, index, made, work)
            index += len(short)

    async def _parse_elements(
        self, elements: list[object], first: int, made: "_Gathered", work: LongWork
    ) -> None:
        for start, end, size in _steps(elements):
            if size < _IN_THREAD_FROM:
                made.add(self._parse_part(elements[start:end], first + start, made.count))
            else:  # it is one
                await self._parse_long(elements[start], first + start, made, work)
            self._check_size(made.size)
            await work.pause()

    async def _parse_list(
        self, text: bytes, cuts: Sequence[int], index: int, made: "_Gathered", work: LongWork
    ) -> None:
        """Add the items of an element that has a list of objects, which are known to be between ``cuts``."""
        # What is wrong with all but them is told as it would be without them.
        empty = self._parse_part([msgspec.Raw(text[: cuts[0]] + text[cuts[-1] :])], index, made.count)
        whole = memoryview(text)
        values = [msgspec.Raw(whole[at:to]) for at, to in zip(cuts[::2], cuts[1::2], strict=True)]
        await self._parse_values_of(empty[0].kind, list[object](values), index, made, work)

    async def _parse_long(self, element: object, index: int, made: "_Gathered", work: LongWork) -> None:
        """Add the items of an element that is long JSON text."""
        await _check_values(element, f"data[{index}]", work, _MAX_LIST)
        name, values = _values(element)
        if values is None:
            await _check_values(element, f"data[{index}]", work)
            made.add(await work.aside(partial(self._parse_part, [element], index, made.count)))
        else:
            await self._parse_values_of(name, values, index, made, work)

    async def _parse_values_of(
        self, name: str, values: list[object], index: int, made: "_Gathered", work: LongWork
    ) -> None:
        for start, end, size in _steps(values):
            place = f"data[{index}].data"
            parse = partial(self._parse_values, name, values[start:end], place, start, made.count)
            if size < _IN_THREAD_FROM:
                items = parse()
            else:
                await _check_values(values[start], f"{place}[{start}]", work)
                items = await work.aside(parse)
            made.add(items, continues=start > 0)
            self._check_size(made.size)
            await work.pause()

    def _parse_values(
        self, name: str, values: list[object], place: str, start: int, count: int
    ) -> list[Item]:
        """Return the items of some of the values of an element whose data is a list."""
        decoded = [_decoded(value, f"{place}[{start + at}]") for at, value in enumerate(values)]
        return self._checked([{"type": name, "data": decoded}], 0, count, (place, start))

    def _parse_part(self, part: list[object], start: int, count: int) -> list[Item]:
        decoded = [_decoded(element, f"data[{start + at}]") for at, element in enumerate(part)]
        return self._checked(decoded, start, count)

    def _checked(
        self, part: list[object], first: int, count: int, within: tuple[str, int] | None = None
    ) -> list[Item]:
        room = self._max_items - count if self._max_items else -1
        if self._max_items and room < 0:
            raise too_many_items(self._max_items)
        items = checked_items(part, first, room, self._max_items, within)
        return list(redact_items(items)) if self._redact else items

    def _check_size(self, size: int) -> None:
        if 0 < self._max_size < size:
            raise share_too_large(self._max_size)


def _most_values(text: JSONText) -> int:
    """Return how many values one long item may hold; -1: any number, since all of them are few enough."""
    return -1 if text.is_counted else MAX_VALUES


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


def _values(element: object) -> tuple[str, list[object] | None]:
    """Return the type of an element in JSON, and its values as text if they are a list that is not empty."""
    if type(element) is not msgspec.Raw:
        return "", None
    try:
        members = _members(element)
        name = (
            str(jsontext.decode(bytes(members["type"]))) if memoryview(members["type"]).nbytes < 100 else ""
        )
        values = _elements(members["data"]) if name in LISTS else []
    except (KeyError, ValueError, RecursionError):  # what is wrong is told where it is decoded
        return "", None
    return name, list(values) or None


async def _check_values(text: object, place: str, work: LongWork, most: int = MAX_VALUES) -> None:
    if type(text) is msgspec.Raw and await holds_more_than(bytes(text), most, work):
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, f"{place}: holds more than {most:,} values")


def _decoded(data: object, place: str = "data") -> object:
    """Return what JSON text stands for, and anything else as it is."""
    if type(data) is not msgspec.Raw:
        return data
    try:
        return jsontext.decode(bytes(data))
    except jsontext.JSONDecodeError as exc:  # such as a number of more digits than Python reads
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{place}: cannot be read: {exc}") from None


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
        # The first of those that become one, and the others.
        self._items: list[tuple[Item, list[Item]]] = []

    def add(self, items: Iterable[Item], *, continues: bool = False) -> None:
        """Add the items of the next part; ``continues``: with more values of the list that came last."""
        for item in items:
            self.size += item.size
            self.count += len(item.values) or 1
            is_more = continues or (
                self._items and item.kind not in LISTS and self._items[-1][0].kind is item.kind
            )
            if is_more:
                self._items[-1][1].append(item)
            else:
                self._items.append((item, []))

    def batch(self) -> Batch:
        """Return the whole."""
        return batch_of(_joined(first, others) for first, others in self._items)


def _joined(first: Item, others: list[Item]) -> Item:
    if not others:
        return first
    joined = (first, *others)
    values = tuple(value for item in joined for value in item.values)
    return Item(first.kind, values, sum(item.size for item in joined))
