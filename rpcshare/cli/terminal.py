"""Printing what others wrote, in a form that cannot drive the terminal that shows it."""

import io
import re
import sys
import unicodedata
from typing import TextIO

from rpcshare import jsontext

__all__ = ["ago", "json_text", "printable", "standard_output"]

# ECMA-48 sections 5.4 (CSI) and 8.3.89 (OSC). Programs' output in a session is full of colours: taken out
# whole, they leave readable text. Whatever has another form loses its control characters all the same.
_ESCAPE_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")

# Controls, formats (which reorder or hide text), halves of surrogate pairs, separators of lines.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # formats, but emoji and several scripts are spelled with them

# What JSON lets stand in a string as it is, and a terminal may act upon.
_UNESCAPED_CONTROL = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400  # seconds


def printable(text: str) -> str:
    """Return ``text`` on one line, without anything that a terminal would act upon."""
    line = " ".join(_ESCAPE_SEQUENCE.sub("", text).split())
    if line.isprintable():
        return line
    return "".join(
        char for char in line if char in _JOINERS or unicodedata.category(char) not in _UNPRINTABLE
    )


def json_text(value: object) -> bytes:
    """Return ``value`` as compact JSON on one line, with every control character in it escaped."""
    text = jsontext.encode(value).decode()
    return _UNESCAPED_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def standard_output() -> TextIO:
    """Return standard output as text, with a ``?`` for what its encoding has no form for."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return sys.stdout


def ago(seconds: float) -> str:
    """Return how long ago something was, in one unit."""
    if seconds < _MINUTE:
        return "just now"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min ago"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h ago"
    return f"{seconds // _DAY:.0f} d ago"
