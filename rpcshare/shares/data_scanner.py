"""Cuts the ``data`` of a sync out of its JSON text, which comes in pieces and is not held as a whole.

What is looked at is where strings, objects and arrays begin and end. Everything else is checked by whoever
decodes what was cut out: an element of ``data``, or what is left of the object when those are taken away.
"""

import re
from array import array
from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

import msgspec

from rpcshare import jsontext
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.failures import too_many_items

__all__ = ["DataScanner", "Element"]

_MAX_BESIDE = 64 * 1024  # bytes of all that is not in data
_MAX_CONTAINERS = 8_000_000  # arrays and objects, each of which takes a step
_MAX_VALUES = 1_000_000  # of lists within elements, where there is no limit of items

# No way back in any: they take linear time, of text that is no JSON, too.
_TEXT = rb'[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TO_BRACKET = re.compile(rb"(?:%b)*+" % _TEXT, re.DOTALL)
_WHOLE = _TEXT
for _ in range(3):  # levels: few values in a part have more
    _WHOLE = rb"%b|[\[{](?:%b)*+[\]}]" % (_TEXT, _WHOLE)
_OVER_CONTAINERS = re.compile(rb"(?:%b)*+" % _WHOLE, re.DOTALL)
_OVER_OBJECTS = re.compile(rb"(?:%b|\{(?:%b)*+\})*+" % (_TEXT, _WHOLE), re.DOTALL)  # but to a list
_WITHIN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_BEFORE_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*\Z')
_BEFORE_DATA_LENGTH = 200  # bytes, with as many spaces as anybody writes
_SECRET = re.compile(rb'"secret"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*+")', re.DOTALL)
_SPACE = b" \t\r\n"
_QUOTE, _OPEN_LIST, _OPEN_OBJECT = b'"[{'
_OPENING = frozenset(b"[{")

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Element(NamedTuple):
    """The JSON text of one element of ``data``."""

    text: bytes
    values: "array[int] | None" = None
    """If its own ``data`` is a list of objects: from where to where in the text each of them is, in turn."""


class _Place(Enum):
    """Where in the text one is."""

    BESIDE = auto()  # in the object, or in a member other than data
    BETWEEN = auto()  # in data, before, between or behind its elements
    ELEMENT = auto()


# How many arrays and objects there are around what begins.
_MEMBER, _ELEMENT, _ELEMENT_MEMBER, _VALUE = 1, 2, 3, 4


class DataScanner:
    """Takes the text of ``{"secret", "data": [...]}`` in pieces, and hands out the elements of ``data``.

    Every method raises :class:`~rpcshare.errors.ShareError`: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
    """

    def __init__(self, *, max_items: int, max_value: int, cuts: bool) -> None:
        """Bound what is found.

        Args:
            max_items: elements, and values of one of them; 0: any number.
            max_value: bytes of an element, but for the objects in a list of its own, and of each of those.
            cuts: whether the text of the elements is wanted.
        """
        self._max_items = max_items
        self._max_value = max_value
        self._cuts = cuts
        self._place = _Place.BESIDE
        self._depth = self._containers = self._elements = 0
        self._in_string = self._is_escaped = False
        self._piece = b""
        self._from = 0  # from where on the piece has not been put where it belongs
        self._beside = bytearray()  # the whole text but for what is within data
        self._between = b""  # the first of what is between two elements, but for spaces
        self._between_length = 0
        self._had_data = False
        self._found: list[Element] = []
        # The element that has begun: its text, or only the end of that; its length up to there.
        self._text = bytearray()
        self._length = 0
        self._values: array[int] | None = None
        self._values_length = 0
        self._in_list = False
        self._list_from = self._list_until = 0

    def feed(self, piece: bytes) -> list[Element]:
        """Return the elements that end in the next piece of the text."""
        self._piece, self._from = piece, 0
        at, end = int(self._is_escaped), len(piece)
        self._is_escaped = self._is_escaped and not end
        while at < end:
            if self._in_string:
                at = _end_of_match(_WITHIN_STRING, piece, at)
                if at < end:
                    self._in_string = piece[at] != _QUOTE
                    self._is_escaped = self._in_string  # by a backslash, the last byte
                    at += 1
                continue
            at = _end_of_match(self._pattern(), piece, at)
            if at < end:
                byte = piece[at]
                if byte == _QUOTE:
                    self._in_string = True
                elif byte in _OPENING:
                    self._open(byte, at)
                else:
                    self._close(at)
                at += 1
        self._take(end)
        found, self._found = self._found, []
        return found

    def finish(self) -> Mapping[str, object]:
        """Return the members of the object, in JSON, with an empty list for ``data``: the text is over."""
        try:
            members = _members(self._beside)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise _invalid(f"the body is not a JSON object: {exc}") from None
        if self._had_data and bytes(members.get("data", msgspec.Raw())) != b"[]":
            raise _invalid("data: is there twice")
        return members

    @property
    def secret(self) -> str | None:
        """The secret, if it seems to have come by now: :meth:`finish` tells for certain."""
        found = _SECRET.search(self._beside)
        try:
            return None if found is None else str(jsontext.decode(bytes(found[1])))
        except jsontext.JSONDecodeError:
            return None

    def _pattern(self) -> "re.Pattern[bytes]":
        """Return what leads over all that need not be looked at."""
        if self._depth > _VALUE or (self._depth == _VALUE and not self._in_list):
            return _OVER_CONTAINERS
        return _OVER_OBJECTS if self._depth == _ELEMENT_MEMBER else _TO_BRACKET

    def _open(self, byte: int, at: int) -> None:
        depth, place = self._depth, self._place
        self._depth = depth + 1
        self._containers += 1
        if self._containers > _MAX_CONTAINERS:
            message = f"the body holds more than {_MAX_CONTAINERS:,} arrays and objects"
            raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)
        if place is _Place.BESIDE:
            if depth == _MEMBER and byte == _OPEN_LIST:
                self._take(at)
                if _ends_with_data(self._beside):
                    self._take(at + 1)
                    self._begin_data()
        elif place is _Place.BETWEEN:
            self._take(at)
            if byte != _OPEN_OBJECT or self._between != (b"," if self._elements else b""):
                raise self._is_no_object()
            self._begin_element()
        elif depth == _ELEMENT_MEMBER and byte == _OPEN_LIST and self._values is None:
            self._take(at)
            if _ends_with_data(self._text):
                self._values, self._in_list = array("Q"), True
                self._list_from = self._length + 1
        elif depth == _VALUE and self._in_list and self._values is not None:
            self._values.append(self._length + at - self._from)

    def _close(self, at: int) -> None:
        self._depth -= 1
        depth, place = self._depth, self._place
        if depth < 0:
            raise _invalid("the body is not a JSON object")
        if place is _Place.BETWEEN:
            self._take(at)
            if self._between:
                raise self._is_no_object()
            self._place = _Place.BESIDE
        elif place is _Place.ELEMENT:
            if depth == _ELEMENT:
                self._take(at + 1)
                self._end_element()
            elif depth == _ELEMENT_MEMBER and self._in_list:
                self._in_list = False
                self._list_until = self._length + at - self._from
            elif depth == _VALUE and self._in_list and self._values is not None:
                self._values.append(self._length + at + 1 - self._from)
                self._end_value(self._values)

    def _begin_data(self) -> None:
        if self._had_data:
            raise _invalid("data: is there twice")
        self._had_data = True
        self._place = _Place.BETWEEN

    def _begin_element(self) -> None:
        self._place = _Place.ELEMENT
        self._between, self._between_length = b"", 0
        self._text.clear()
        self._length = self._values_length = 0
        self._values = None

    def _end_value(self, values: "array[int]") -> None:
        self._values_length += values[-1] - values[-2]
        count = len(values) // 2
        if values[-1] - values[-2] > self._max_value:
            raise self._is_too_long(f".data[{count - 1}]")
        if count > (self._max_items or _MAX_VALUES):
            raise too_many_items(self._max_items or _MAX_VALUES)

    def _end_element(self) -> None:
        self._place = _Place.BETWEEN
        if self._cuts:
            text = bytes(self._text)
            values = self._values
            is_list = values and _are_all(text, values, self._list_from, self._list_until)
            self._found.append(Element(text, values if is_list else None))
        self._text.clear()
        self._elements += 1
        if 0 < self._max_items < self._elements:
            raise too_many_items(self._max_items)

    def _take(self, until: int) -> None:
        """Put the text up to a place in the piece where it belongs."""
        text, self._from = self._piece[self._from : until], until
        if self._place is _Place.BESIDE:
            self._beside += text
            if len(self._beside) > _MAX_BESIDE:
                raise _invalid(f"the body holds more than {_MAX_BESIDE:,} bytes beside the list data")
        elif self._place is _Place.BETWEEN:
            # What is no object is told where it ends, or is too long.
            self._between = (self._between + text.translate(None, _SPACE))[:2]
            self._between_length += len(text)
            if self._between_length > self._max_value:
                raise self._is_too_long()
        else:
            self._length += len(text)
            self._text += text
            if not self._cuts:
                del self._text[:-_BEFORE_DATA_LENGTH]
            self._check_length()

    def _check_length(self) -> None:
        values = self._values
        is_within = values is not None and len(values) % 2 == 1
        begun = self._length - values[-1] if values is not None and is_within else 0
        if begun > self._max_value or self._length - self._values_length - begun > self._max_value:
            raise self._is_too_long()

    def _is_no_object(self) -> ShareError:
        return _invalid(f"data[{self._elements}]: must be an object")

    def _is_too_long(self, within: str = "") -> ShareError:
        place = f"data[{self._elements}]{within}"
        message = f"the body is larger than {self._max_value:,} bytes, and so is {place} alone"
        return ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)


def _end_of_match(pattern: "re.Pattern[bytes]", piece: bytes, at: int) -> int:
    found = pattern.match(piece, at)
    return at if found is None else found.end()


def _ends_with_data(text: bytearray) -> bool:
    return _BEFORE_DATA.search(text[-_BEFORE_DATA_LENGTH:]) is not None


def _are_all(text: bytes, values: "array[int]", start: int, end: int) -> bool:
    """Whether a list from ``start`` to ``end`` is of the ``values``, with one comma between each two."""
    gaps = zip((start, *values[1::2]), (*values[::2], end), strict=True)
    between = [text[after:before].translate(None, _SPACE) for after, before in gaps]
    return not between[0] and not between[-1] and all(each == b"," for each in between[1:-1])


def _invalid(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
