"""How many values a JSON text holds, counted before anything is made of it.

A decoder makes ten times its text of a list of zeros, and holds everybody up meanwhile. To count takes no
memory, and is done bit by bit.
"""

import re
from collections.abc import Iterator

from rpcshare.long_work import LongWork

__all__ = ["ValueCounter", "holds_more_than"]

_PIECE = 64 * 1024  # bytes
_MARKS = (b",", b"[", b"{")  # each begins another value

# No way back in any: they take linear time, of text that is no JSON, too.
_WHOLE_STRINGS = re.compile(rb'(?:[^"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # all of them end
_WITHIN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class ValueCounter:
    """Counts what is outside of strings: arrays and objects, and values in all."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.containers = 0
        self.values = 0

    def count(self) -> Iterator[None]:
        """Count a piece of the text, and the next one when it is asked for."""
        text, start, is_within = self._text, 0, False
        while start < len(text):
            piece = (_WITHIN_STRING if is_within else _WHOLE_STRINGS).match(text, start, start + _PIECE)
            end = start if piece is None else piece.end()
            if is_within:
                is_within = text[end : end + 1] != b'"'
                # What is left at the end of a piece is a backslash, and belongs to what follows it.
                start = end + 1 if not is_within else end + 2 if text[end : end + 1] == b"\\" else end
            else:
                outside = _STRING.sub(b"", text[start:end])
                commas, *openings = map(outside.count, _MARKS)
                self.containers += sum(openings)
                self.values += commas + sum(openings)
                is_within = text[end : end + 1] == b'"' and end < start + _PIECE
                start = end + is_within
            yield


async def holds_more_than(text: bytes, values: int, work: LongWork, containers: int | None = None) -> bool:
    """Whether ``text`` holds more than so many values, or more than so many arrays and objects."""
    containers = values if containers is None else containers
    commas, *openings = map(text.count, _MARKS)
    if sum(openings) <= containers and commas + sum(openings) <= values:
        return False  # not even with those that are within strings
    counter = ValueCounter(text)
    for _ in counter.count():
        if counter.containers > containers or counter.values > values:
            return True
        await work.pause()
    return counter.containers > containers or counter.values > values
