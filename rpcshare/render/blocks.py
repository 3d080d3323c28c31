"""What the body of a part is made of: the few forms in which everything in a session is shown.

A template has one macro for each ``form``.
"""

import re
from typing import ClassVar, Final

import msgspec
from markupsafe import Markup

from rpcshare.render import figures
from rpcshare.render.figures import plural
from rpcshare.render.lenient_json import Fields
from rpcshare.render.safe_text import plain, without_terminal_controls
from rpcshare.render.terminal import shown_by_terminal

__all__ = [
    "NORMAL",
    "PLAIN",
    "PLAIN_WHOLE",
    "WHOLE",
    "Block",
    "Bounds",
    "Checklist",
    "Choices",
    "Code",
    "Download",
    "Fold",
    "Note",
    "Picture",
    "Prose",
    "Table",
    "Text",
    "cut_characters",
    "cut_lines",
    "note",
    "picture",
    "prompt",
    "scalar",
    "text",
]


class Bounds(msgspec.Struct, frozen=True):
    """How much of one thing is shown before it is cut."""

    lines: int
    characters: int
    prose: int
    """Characters of text and markdown."""
    image: int
    """Characters of a data URL."""
    is_whole: bool = False
    has_colours: bool = True
    """Whether code is highlighted."""
    is_plain: bool = False
    """Whether text is shown as it was written, and files are not compared."""


NORMAL = Bounds(lines=60, characters=6_000, prose=16_000, image=128_000)
"""On a page with others."""

WHOLE = Bounds(lines=50_000, characters=2_000_000, prose=1_000_000, image=12_000_000, is_whole=True)
"""On a page of its own."""

PLAIN = msgspec.structs.replace(NORMAL, image=0, has_colours=False, is_plain=True)
"""What cannot be drawn with more."""

PLAIN_WHOLE = msgspec.structs.replace(PLAIN, lines=5_000, characters=200_000, prose=200_000, is_whole=True)
"""Likewise, on a page of its own."""


class Block(msgspec.Struct, frozen=True):
    """A piece of a part's body."""

    form: ClassVar[str]


class Prose(Block, frozen=True):
    """Markdown."""

    form = "prose"
    html: Markup
    cut: str = ""
    """How much there is in all, where not all is shown."""


class Text(Block, frozen=True):
    """What somebody typed, as it was typed."""

    form = "text"
    text: str
    cut: str = ""
    rest: str = ""
    """What is folded away of it, behind the beginning."""
    rest_extent: str = ""
    """How much that is."""


class Code(Block, frozen=True):
    """Code, output, or anything else of fixed width."""

    form = "code"
    html: Markup
    label: str = ""
    command: str = ""
    """What was typed into a shell to get this."""
    is_output: bool = False
    first_line: int = 0
    """Its number, where the lines are a file's; 0 otherwise."""
    cut: str = ""


class Checklist(Block, frozen=True):
    """Things to do: (text, state)."""

    form = "checklist"
    items: list[tuple[str, str]]


class Choices(Block, frozen=True):
    """A question with its answers: (label, description, whether it was chosen)."""

    form = "choices"
    header: str
    question: str
    items: list[tuple[str, str, bool]]


class Table(Block, frozen=True):
    """Names and values."""

    form = "table"
    rows: list[tuple[str, str]]


class Picture(Block, frozen=True):
    """An image, held by the page itself."""

    form = "picture"
    source: str
    alternative: str


class Download(Block, frozen=True):
    """A file to be had from the server."""

    form = "download"
    href: str
    name: str


class Note(Block, frozen=True):
    """A sentence about something: of tone ``error``, ``warning`` or none."""

    form = "note"
    text: str
    tone: str = ""
    cut: str = ""


class Fold(Block, frozen=True):
    """Blocks that are read only by who asks for them."""

    form = "fold"
    summary: str
    blocks: list[Block]


def text(written: str, bounds: Bounds) -> list[Block]:
    """Return text as it was typed; nothing for none."""
    if not written.strip():
        return []
    shown, cut = cut_characters(written, bounds.prose)
    shown = shown.strip("\n")
    if "\x1b" in shown:
        shown = (
            without_terminal_controls(shown)
            if bounds.is_plain
            else Markup("\n").join(shown_by_terminal(shown))
        )
    return [Text(shown, cut)]


_PROMPT_LINES: Final = 16
_PROMPT_CHARACTERS: Final = 1_500


def prompt(written: str, bounds: Bounds) -> list[Block]:
    """Return a prompt as it was typed; of a long one, the beginning alone is unfolded."""
    if bounds.is_whole or bounds.is_plain:
        return text(written, bounds)
    shown, cut = cut_characters(written.strip("\n"), bounds.prose)
    end = _end_of_beginning(shown)
    rest = shown[end:].strip("\n")
    if not rest:
        return text(written, bounds)
    lines = [
        Markup("\n").join(shown_by_terminal(each)) if "\x1b" in each else each for each in (shown[:end], rest)
    ]
    return [Text(lines[0], cut, lines[1], plural(rest.count("\n") + 1, "more line"))]


def _end_of_beginning(written: str) -> int:
    """Return where a text is folded: at the end of a line or a word, and not for a few lines more."""
    sixteen = -1
    for _ in range(_PROMPT_LINES):
        sixteen = written.find("\n", sixteen + 1)
        if not 0 <= sixteen <= _PROMPT_CHARACTERS:
            break
    end = min(sixteen if sixteen >= 0 else len(written), _PROMPT_CHARACTERS)
    if len(written) - end <= _PROMPT_CHARACTERS // 2 and written.count("\n", end) <= _PROMPT_LINES // 2:
        return len(written)
    if end == sixteen:
        return end
    word = max(written.rfind("\n", 0, end), written.rfind(" ", 0, end))
    return word if word > 0 else end


def note(written: str, bounds: Bounds, tone: str = "") -> list[Block]:
    """Return a message, such as that of an error; nothing for none."""
    if not written.strip():
        return []
    shown, cut = cut_characters(plain(written), bounds.characters)
    return [Note(shown.strip(), tone, cut)]


_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/\s]*={0,2}", re.IGNORECASE)


def picture(url: str, name: str, bounds: Bounds) -> list[Block]:
    """Return the image in a ``data:`` URL of a format that holds no script; a note where it is too large."""
    if url[:11].lower() != "data:image/":
        return []
    if len(url) > bounds.image:
        size = figures.size(len(url) * 3 // 4)
        return [Note(f"An image of {size}.", cut="image")]
    if not _PICTURE.fullmatch(url):
        return []
    return [Picture("".join(url.split()), name or "image")]


def cut_characters(written: str, limit: int) -> tuple[str, str]:
    """Return the beginning of a text, and how much there is in all if that is more."""
    if len(written) <= limit:
        return written, ""
    end = written.rfind("\n", limit // 2, limit)
    return written[: end if end > 0 else limit], figures.size(len(written))


def cut_lines(written: str, bounds: Bounds) -> tuple[str, str]:
    """Return the first lines of a text, and how much there is in all if that is more."""
    end = -1
    for _ in range(bounds.lines):
        end = written.find("\n", end + 1)
        if end < 0 or end > bounds.characters:
            break
    else:
        if written[end:].strip():
            return written[: min(end, bounds.characters)], _extent(written)
    if len(written) > bounds.characters:
        return written[: bounds.characters], _extent(written)
    return written, ""


def _extent(written: str) -> str:
    lines = figures.plural(written.count("\n") + 1, "line")
    return f"{lines}, {figures.size(len(written))}" if len(written) > 10_000 else lines


def scalar(value: object) -> str:  # noqa: PLR0911 -- one return for each kind
    """Return a JSON value in one line; of lists and objects, only that they are there."""
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 4000:  # more digits than Python turns into text
        return "…"
    return str(value)


def rows_of(fields: Fields, bounds: Bounds) -> list[tuple[str, str]] | None:
    """Return a few short values under their names, or None if there are others among them."""
    rows = []
    if len(fields.whole) > bounds.lines:
        return None
    for name, value in fields.whole.items():
        if isinstance(value, dict | list):
            return None
        shown = value if isinstance(value, str) else scalar(value)
        if len(shown) > 400 or "\n" in shown:
            return None
        rows.append((plain(name[:80]), plain(shown)))
    return rows
