"""Code with its tokens in classes, by Pygments; the colours are in the style sheet."""

from functools import lru_cache
from typing import NamedTuple

from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

__all__ = ["CodeLine", "coloured_lines", "highlighted", "language_of"]

# A lexer takes about 1 µs a byte, and some a good deal more: what is longer than this is shown plain.
_MAX_HIGHLIGHTED = 30_000
_MAX_LINE = 2_000  # minified code gains nothing, and costs most

_NAMES = {"sh": "bash", "shell": "bash", "console": "bash", "jsonc": "json", "tsx": "tsx", "vue": "html"}

_UNCOLOURED = frozenset({"n", "o", "p", "w"})  # names, operators, punctuation, space

_formatter: HtmlFormatter[str] = HtmlFormatter(nowrap=True, classprefix="")


def highlighted(code: str, language: str) -> Markup:
    """Return code as HTML: tokens of a known language in classed spans, else escaped text."""
    if language and len(code) <= _MAX_HIGHLIGHTED and not _has_long_line(code):
        lexer = _lexer(language[:40].lower())
        if lexer is not None:
            return Markup(highlight(code, lexer, _formatter))  # noqa: S704 -- Pygments escapes what it prints
    return escape(code)


class CodeLine(NamedTuple):
    """A line of code."""

    tokens: list[tuple[str, str]]
    """(class, text) of each; the class is empty for what has no colour."""

    @property
    def text(self) -> str:
        """The line itself."""
        return "".join(text for _, text in self.tokens)

    def html(self, start: int = 0, end: int = 0) -> Markup:
        """Return the line as HTML, with what is between two of its characters in ``<mark>``."""
        if start >= end:
            return Markup("").join(_token(kind, text) for kind, text in self.tokens)
        pieces: list[list[Markup]] = [[], [], []]
        at = 0
        for kind, text in self.tokens:
            edges = [min(max(edge - at, 0), len(text)) for edge in (start, end)]
            for piece, part in zip(
                pieces, (text[: edges[0]], text[edges[0] : edges[1]], text[edges[1] :]), strict=True
            ):
                if part:
                    piece.append(_token(kind, part))
            at += len(text)
        before, marked, after = (Markup("").join(piece) for piece in pieces)
        return before + Markup("<mark>{}</mark>").format(marked) + after


def _token(kind: str, text: str) -> Markup:
    return Markup('<span class="{}">{}</span>').format(kind, text) if kind else escape(text)


def coloured_lines(lines: list[str], language: str) -> list[CodeLine]:
    """Return lines that follow each other, with the tokens of a known language."""
    code = "\n".join(lines)
    plain = [CodeLine([("", line)] if line else []) for line in lines]
    if not language or len(code) > _MAX_HIGHLIGHTED or _has_long_line(code):
        return plain
    lexer = _lexer(language[:40].lower())
    if lexer is None:
        return plain
    made = [CodeLine([])]
    for token, text in lexer.get_tokens(code):
        while token not in STANDARD_TYPES and token.parent is not None:
            token = token.parent  # noqa: PLW2901 -- a type of the lexer's own has the colour of its kind
        kind = STANDARD_TYPES.get(token, "")
        kind = "" if kind in _UNCOLOURED else kind
        for number, piece in enumerate(text.split("\n")):
            if number:
                made.append(CodeLine([]))
            if piece:
                made[-1].tokens.append((kind, piece))
    # A lexer may take a character for a line's end that is none here.
    return made if [line.text for line in made] == lines else plain


def language_of(file_name: str) -> str:
    """Return the language that a file's name tells; empty for none."""
    return _language(file_name.replace("\\", "/").rpartition("/")[2][-80:])


@lru_cache(maxsize=256)
def _language(name: str) -> str:
    try:
        lexer = get_lexer_for_filename(name)
    except ClassNotFound:
        return ""
    return lexer.aliases[0] if lexer.aliases else ""


@lru_cache(maxsize=128)
def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(_NAMES.get(language, language), stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def _has_long_line(code: str) -> bool:
    return len(code) > _MAX_LINE and any(len(line) > _MAX_LINE for line in code.split("\n"))
