"""What a terminal would show of a command's output: colours, and where the cursor went.

Linear in the output: each sequence costs a fixed amount, or what it removes. ECMA-48 names the sequences.
"""

import re
from collections.abc import Iterator
from typing import Final

from markupsafe import Markup, escape

from rpcshare.render.safe_text import clean, plain

__all__ = [
    "STYLE_CLASSES",
    "UNSTYLED",
    "Style",
    "classes_of_style",
    "has_controls",
    "shown_by_terminal",
    "styled",
]

_TOKEN: Final = re.compile(
    r"\x1b\[(?P<parameters>[0-?]{0,100})[ -/]{0,4}(?P<final>[@-~])"
    r"|\x1b\][^\x07\x1b\n]{0,4000}(?:\x07|\x1b\\)?"
    r"|\x1b[PX^_][^\x1b\n]{0,4000}(?:\x1b\\)?|\x1b[ -/]{0,4}[0-~]?"
    r"|(?P<control>[\r\n\b])|(?P<text>[^\x1b\r\n\b]+)"
)
_WIDTH: Final = 500  # columns that the cursor may be moved to
_PADDING: Final = 100_000  # cells in all that moving the cursor and erasing may make
_BASIC: Final = 16

Style = tuple[str, str, str]
"""Foreground, background, and whatever else."""

UNSTYLED: Final[Style] = ("", "", "")
_FLAGS: Final = {1: "bold", 2: "dim", 3: "italic", 4: "underlined", 7: "inverse", 9: "struck"}
STYLE_CLASSES: Final = frozenset(
    {f"ansi-{flag}" for flag in _FLAGS.values()} | {f"ansi-{kind}{n}" for kind in "fb" for n in range(_BASIC)}
)
_OFF: Final = {22: ("bold", "dim"), 23: ("italic",), 24: ("underlined",), 27: ("inverse",), 29: ("struck",)}


def has_controls(text: str) -> bool:
    """Return whether a terminal would show a text as other than it stands there."""
    return "\x1b" in text or "\b" in text or "\r" in text


def shown_by_terminal(text: str) -> list[Markup]:
    """Return the lines that a terminal shows in the end, as HTML."""
    screen = _Screen()
    for match in _TOKEN.finditer(text):
        if match["text"]:
            screen.write(match["text"])
        elif match["control"]:
            screen.control(match["control"])
        elif match["final"]:
            screen.sequence(match["parameters"], match["final"])
    return [_html(line) for line in screen.lines]


class _Screen:
    def __init__(self) -> None:
        self.lines: list[list[tuple[str, Style]]] = [[]]
        self._row = self._column = 0
        self._style = UNSTYLED
        self._padding = _PADDING
        self._saved = (0, 0)

    def write(self, text: str) -> None:
        line = self.lines[self._row]
        self._pad(line)
        end = self._column + len(text)
        line[self._column : end] = [(character, self._style) for character in text]
        self._column = end

    def control(self, character: str) -> None:
        if character == "\n":
            self._row += 1
            self._column = 0
            if self._row == len(self.lines):
                self.lines.append([])
        elif character == "\r":
            self._column = 0
        else:
            self._column = max(0, self._column - 1)

    def sequence(self, parameters: str, final: str) -> None:  # noqa: C901, PLR0912 -- one branch a sequence
        numbers = [int(each) if each.isdecimal() and len(each) < 6 else 0 for each in parameters.split(";")]
        first = numbers[0]
        count = first or 1
        line = self.lines[self._row]
        match final:
            case "m":
                self._style = _styled(self._style, numbers)
            case "A":
                self._row = max(0, self._row - count)
            case "B":
                self._row = min(len(self.lines) - 1, self._row + count)
            case "E" | "F":
                by = count if final == "E" else -count
                self._row = min(max(0, self._row + by), len(self.lines) - 1)
                self._column = 0
            case "C":
                self._column = max(self._column, min(self._column + count, _WIDTH))
            case "D":
                self._column = max(0, self._column - count)
            case "G" | "`":
                self._column = min(count - 1, _WIDTH)
            case "H" | "f":
                # The screen began above: rows count from the first line that is known.
                self._row = min(count - 1, len(self.lines) - 1)
                self._column = min((numbers[1] if len(numbers) > 1 else 1) or 1, _WIDTH) - 1
            case "K" if first == 0:
                del line[self._column :]
            case "K" if first == 1 and self._column <= self._padding:
                self._padding -= self._column
                line[: self._column] = [(" ", UNSTYLED)] * min(self._column, len(line))
            case "K" if first == 1:
                pass
            case "K":
                line.clear()
            case "J" if first == 0:
                del line[self._column :]
                del self.lines[self._row + 1 :]
            case "J" if first in (2, 3):
                self.lines = [[]]
                self._row = 0
            case "P":
                del line[self._column : self._column + count]
            case "s":
                self._saved = (self._row, self._column)
            case "u":
                self._row, self._column = min(self._saved[0], len(self.lines) - 1), self._saved[1]

    def _pad(self, line: list[tuple[str, Style]]) -> None:
        missing = self._column - len(line)
        if missing > self._padding:
            self._column = len(line)
        elif missing > 0:
            self._padding -= missing
            line += [(" ", UNSTYLED)] * missing


def styled(style: Style, parameters: str) -> Style:
    """Return a style after the sequence that sets styles (SGR) with some ``parameters``."""
    return _styled(
        style, [int(each) if each.isdecimal() and len(each) < 6 else 0 for each in parameters.split(";")]
    )


def classes_of_style(style: Style) -> str:
    """Return the classes of what is shown in a style; empty for none."""
    front, back, flags = style
    classes = [f"ansi-{each}" for each in flags.split()]
    classes += [f"ansi-f{front}"] if front else []
    classes += [f"ansi-b{back}"] if back else []
    return " ".join(classes)


def _styled(style: Style, numbers: list[int]) -> Style:
    front, back, flags = style
    codes = iter(numbers)
    for code in codes:
        if code == 0:
            front, back, flags = UNSTYLED
        elif code in _FLAGS:
            kept = [each for each in flags.split() if each != _FLAGS[code]]
            flags = " ".join([*kept, _FLAGS[code]])
        elif code in _OFF:
            flags = " ".join(each for each in flags.split() if each not in _OFF[code])
        elif code in (38, 48):
            colour = _colour(codes)
            front, back = (colour, back) if code == 38 else (front, colour)
        elif code in (39, 49):
            front, back = ("", back) if code == 39 else (front, "")
        elif 30 <= code <= 37 or 90 <= code <= 97:
            front = str(code - 30 if code < 90 else code - 82)
        elif 40 <= code <= 47 or 100 <= code <= 107:
            back = str(code - 40 if code < 100 else code - 92)
    return front, back, flags


def _colour(codes: Iterator[int]) -> str:
    """Return the nearest of the 16 colours: a page's policy has no room for others."""
    kind = next(codes, 0)
    if kind == 5:
        number = next(codes, 0)
        if number < _BASIC:
            return str(number)
        if number >= 232:
            level = (number - 232) * 10 + 8
            return _nearest(level, level, level)
        red, green, blue = (number - 16) // 36, (number - 16) // 6 % 6, (number - 16) % 6
        return _nearest(*(each * 40 + 55 if each else 0 for each in (red, green, blue)))
    if kind == 2:
        return _nearest(next(codes, 0), next(codes, 0), next(codes, 0))
    return ""


def _nearest(red: int, green: int, blue: int) -> str:
    highest, lowest = max(red, green, blue), min(red, green, blue)
    if highest - lowest < 40:
        return "0" if highest < 64 else "8" if highest < 144 else "7" if highest < 224 else "15"
    half = (highest + lowest) / 2
    number = (red > half) + 2 * (green > half) + 4 * (blue > half)
    return str(number + (8 if lowest > 96 else 0))


def _html(line: list[tuple[str, Style]]) -> Markup:
    pieces: list[Markup] = []
    start = 0
    for end in range(1, len(line) + 1):
        if end == len(line) or line[end][1] != line[start][1]:
            text = _safe("".join(character for character, _ in line[start:end]))
            if classes := classes_of_style(line[start][1]):
                pieces.append(Markup('<span class="{}">{}</span>').format(classes, text))
            else:
                pieces.append(escape(text))
            start = end
    return Markup("").join(pieces)


def _safe(text: str) -> str:
    return plain(clean(text))
