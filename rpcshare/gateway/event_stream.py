"""Server-sent events, read as they arrive, in whatever pieces that is.

Source: the HTML standard, section 9.2.6, "Interpreting an event stream".
"""

from __future__ import annotations

import re

__all__ = ["EventReader"]

_END = re.compile(rb"\r\n|\n|\r")

LONGEST = 4 * 1024 * 1024
"""Bytes of an event. One that is longer is passed over."""


class EventReader:
    """Takes bytes, and returns the data of each event that they complete.

    A line may be cut anywhere, within a character or between CR and LF. Comments, and fields other than
    ``data``, are passed over. It keeps no more than one event.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._is_too_long = False
        self._ended_with_cr = False
        self._is_first = True

    @property
    def is_between_events(self) -> bool:
        """Whether what has arrived ends where an event ends, so that another may follow."""
        return not (self._line or self._data or self._is_too_long)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of the events that end in ``data``."""
        if self._ended_with_cr and data.startswith(b"\n"):
            data = data[1:]
            self._ended_with_cr = False
        if not data:
            return []
        self._ended_with_cr = data.endswith(b"\r")
        *lines, rest = _END.split(data)
        found: list[bytes] = []
        for line in lines:
            self._extend(line)
            if (event := self._end_line()) is not None:
                found.append(event)
        self._extend(rest)
        return found

    def _extend(self, piece: bytes) -> None:
        if self._is_too_long:
            # Of a line that is passed over, it matters whether it is empty.
            self._line += piece[: 1 - len(self._line)]
            return
        self._line += piece
        if len(self._line) + self._size > LONGEST:
            self._is_too_long = True
            del self._line[1:]
            self._data, self._size = [], 0

    def _end_line(self) -> bytes | None:
        """Take the line that has ended; return the data of an event that ends with it."""
        line = bytes(self._line)
        self._line.clear()
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if self._is_too_long:
            self._is_too_long = bool(line)  # the event goes on to the next empty line
            return None
        if not line:
            data, self._data, self._size = self._data, [], 0
            return b"\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1
        return None
