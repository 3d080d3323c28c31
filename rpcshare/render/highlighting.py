"""Code with its tokens in classes, by Pygments; the colours are in the style sheet."""

from functools import lru_cache

from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.util import ClassNotFound

__all__ = ["highlighted", "language_of"]

# A lexer takes about 1 µs a byte, and some a good deal more: what is longer than this is shown plain.
_MAX_HIGHLIGHTED = 30_000
_MAX_LINE = 2_000  # minified code gains nothing, and costs most

_NAMES = {"sh": "bash", "shell": "bash", "console": "bash", "jsonc": "json", "tsx": "tsx", "vue": "html"}

_formatter: HtmlFormatter[str] = HtmlFormatter(nowrap=True, classprefix="")


def highlighted(code: str, language: str) -> Markup:
    """Return code as HTML: tokens of a known language in classed spans, else escaped text."""
    if language and len(code) <= _MAX_HIGHLIGHTED and not _has_long_line(code):
        lexer = _lexer(language[:40].lower())
        if lexer is not None:
            return Markup(highlight(code, lexer, _formatter))  # noqa: S704 -- Pygments escapes what it prints
    return escape(code)


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
