"""Printing what others wrote, in a form that cannot drive the terminal that shows it."""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO

import click

from rpcshare import jsontext

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Column",
    "ago",
    "json_text",
    "print_table",
    "printable",
    "printable_text",
    "say",
    "standard_output",
]

# ECMA-48 sections 5.4 (CSI) and 8.3.89 (OSC). Programs' output in a session is full of colours: taken out
# whole, they leave readable text. Whatever has another form loses its control characters all the same.
_ESCAPE_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")

# Controls, formats (which reorder or hide text), halves of surrogate pairs, separators of lines.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # formats, but emoji and several scripts are spelled with them

# Those of them that JSON lets stand in a string as they are.
_UNESCAPED_CONTROL = re.compile(
    "[\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400  # seconds
_GAP = 2  # columns of the terminal, between those of a table


def printable(text: str) -> str:
    """Return ``text`` on one line, without anything that a terminal would act upon."""
    line = " ".join(_ESCAPE_SEQUENCE.sub("", text).split())
    if line.isprintable():
        return line
    return "".join(
        char for char in line if char in _JOINERS or unicodedata.category(char) not in _UNPRINTABLE
    )


def printable_text(text: str) -> str:
    """Return ``text`` with its lines and spaces, without anything else that a terminal would act upon."""
    text = _ESCAPE_SEQUENCE.sub("", text).replace("\t", "    ")
    return "".join(
        char
        for char in text
        if char == "\n" or char in _JOINERS or unicodedata.category(char) not in _UNPRINTABLE
    )


def say(*lines: str, err: bool = False) -> None:
    """Print ``lines`` for people, as :func:`printable` has them: no line that somebody wrote becomes two."""
    out = sys.stderr if err else standard_output()
    for line in lines:
        click.echo(printable(line), file=out)


class Column(NamedTuple):
    """A column of a table."""

    heading: str
    is_number: bool = False
    without_room: Literal["stay", "cut", "fold", "below"] = "stay"
    """What a cell does that has no room: others make some, it is cut, it goes on in the next line, or it gets
    a line of its own below its row, on which it is whole."""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output, its cells printable whatever is in them.

    Where the output is no terminal, it is tab-separated: a heading, and a line for each row.
    """
    out = standard_output()
    if not out.isatty():
        for cells in ([column.heading for column in columns], *rows):
            click.echo("\t".join(printable(cell) for cell in cells), file=out)
        return
    # Not with the module: they take longer to import than most commands to run.
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    console = Console(file=out)
    shown = [[printable(cell) for cell in row] for row in rows]
    lengths = [
        max(map(cell_len, cells)) for cells in zip([each.heading for each in columns], *shown, strict=True)
    ]
    below = [place for place, column in enumerate(columns) if column.without_room == "below"]
    if sum(lengths) + _GAP * (len(columns) - 1) <= console.width or not below:
        console.print(_table(columns, shown))
        return
    beside = [place for place in range(len(columns)) if place not in below]
    with console.capture() as captured:
        console.print(
            _table([columns[each] for each in beside], [[row[each] for each in beside] for row in shown])
        )
    heading, *lines = captured.get().splitlines()  # one for each row: none of these cells is folded
    click.echo(heading.rstrip(), file=out)
    for line, row in zip(lines, shown, strict=True):
        click.echo(line.rstrip(), file=out)
        for place in below:
            if row[place]:
                click.echo(f"  {row[place]}", file=out)


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table  # noqa: PLC0415 -- likewise
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            overflow="fold" if column.without_room == "fold" else "ellipsis",
            no_wrap=column.without_room == "stay",
        )
    for row in rows:
        table.add_row(
            *(
                Text(cell, no_wrap=None if column.without_room == "fold" else True)
                for column, cell in zip(columns, row, strict=True)
            )
        )
    return table


def json_text(value: object) -> bytes:
    """Return ``value`` as compact JSON on one line, with every control character in it escaped."""
    text = jsontext.encode(value).decode()
    return _UNESCAPED_CONTROL.sub(lambda match: json.dumps(match[0])[1:-1], text).encode()


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
