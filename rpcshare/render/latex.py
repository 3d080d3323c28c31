"""Formulas of LaTeX as MathML, by latex2mathml; what it does not know stays as it was written.

Whether a formula is meant is guessed where ``$`` may as well be money, a shell's variable or a template's.
"""

import html
import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element

from latex2mathml import commands, exceptions
from latex2mathml.converter import Converter
from markupsafe import Markup

from rpcshare.render.safe_text import plain

__all__ = [
    "MATHML_ATTRIBUTES",
    "MATHML_TAGS",
    "MAX_FORMULA",
    "MAX_FORMULAS",
    "formula_at",
    "is_formula",
    "mathml",
]

MAX_FORMULA = 2_000
"""Characters of a formula. It takes about 10 ms."""

MAX_FORMULAS = 500
"""Formulas of one text that are drawn."""

_MAX_NESTING = 80  # of elements
_MAX_ELEMENTS = 3_000

MATHML_TAGS: Final = frozenset(
    (
        *("math", "mrow", "mi", "mn", "mo", "mtext", "ms", "mspace", "mfrac", "msqrt", "mroot", "mstyle"),
        *("msub", "msup", "msubsup", "munder", "mover", "munderover", "mmultiscripts", "mprescripts"),
        *("mpadded", "mphantom", "menclose", "mtable", "mtr", "mtd"),
    )
)
"""None of these can hold HTML, or lead anywhere."""

_CHILDREN: Final = {
    **dict.fromkeys(("mfrac", "mroot", "msub", "msup", "munder", "mover"), 2),
    **dict.fromkeys(("msubsup", "munderover"), 3),
}
_LENGTHS: Final = frozenset(("width", "height", "depth", "lspace", "rspace", "voffset", "linethickness"))
_WORDS: Final = frozenset(
    (
        *("display", "displaystyle", "scriptlevel", "stretchy", "fence", "form", "mathvariant", "accent"),
        *("accentunder", "movablelimits", "columnalign", "largeop", "symmetric", "separator"),
    )
)
MATHML_ATTRIBUTES: Final = _LENGTHS | _WORDS | {"alttext", "notation"}

# Short lengths only: with others, a formula would cover what is beside it.
_LENGTH: Final = re.compile(r"[+-]?(?:[0-2]?(?:\.\d{1,4})?(?:em|ex|pt)|\d{1,2}(?:mu|pt)|0)")
_WORD: Final = re.compile(r"[a-z0-9+-]{1,20}", re.IGNORECASE)

# What a formula cannot have: definitions, which may grow without end, and what is drawn as something else.
_REFUSED: Final = re.compile(
    r"\\(?:newcommand|renewcommand|providecommand|def|edef|gdef|let|newenvironment|DeclareMathOperator|href|url"
    r"|style|class|cssId|unicode|rule|require|input|include|verb|phantom|hphantom|vphantom|[rlc]lap|smash)"
    r"(?![a-zA-Z])"
)

# Those that the converter does not know, by one that it does, and none that would number its lines.
_ENVIRONMENTS: Final = {
    **dict.fromkeys(("align", "aligned", "eqnarray", "eqnarray*"), "align*"),
    **dict.fromkeys(("gather", "gather*", "gathered", "multline", "multline*"), "matrix"),
    **dict.fromkeys(("equation", "equation*"), "matrix"),
    "dcases": "cases",
}
_ENVIRONMENT: Final = re.compile(r"\\(begin|end)\{(" + "|".join(map(re.escape, _ENVIRONMENTS)) + r")\}")

_BEGIN: Final = re.compile(r"\\begin\s*\{([^}]*)\}?")

_converter_errors: Final[tuple[type[Exception], ...]] = tuple(
    each for each in vars(exceptions).values() if isinstance(each, type) and issubclass(each, Exception)
)


class _UnknownError(Exception):
    """There is something in a formula that is not known here."""


_FAILURES: Final[tuple[type[Exception], ...]] = (
    *_converter_errors,
    *(_UnknownError, RecursionError, StopIteration, RuntimeError),
    *(LookupError, ValueError, TypeError, AttributeError),  # of LaTeX that is none, it is told thus
)


def mathml(latex: str, *, is_block: bool) -> Markup | None:
    """Return a formula as MathML, or None where it cannot be drawn as it is meant."""
    if len(latex) > MAX_FORMULA or _REFUSED.search(latex):
        return None
    display = "block" if is_block else "inline"
    known = _ENVIRONMENT.sub(lambda match: f"\\{match[1]}{{{_ENVIRONMENTS[match[2]]}}}", latex)
    if any(f"\\{name}" not in commands.MATRICES for name in _BEGIN.findall(known)):
        return None
    try:
        tree = Converter(display=display).convert_to_element(known)
        drawn = "".join(_printed(tree))
    except _FAILURES:
        return None
    alternative = Markup(' alttext="{}">').format(" ".join(plain(latex).split()))
    return Markup(f"<math display={display} dir=ltr") + alternative + Markup(drawn + "</math>")  # noqa: S704 -- escaped


def _printed(tree: Element) -> Iterator[str]:
    """Yield what is within a ``<math>``; the converter's own printing leaves what users wrote unescaped."""
    waiting: list[Element | str] = [*reversed(tree)]
    count = depth = 0
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            depth -= 1
            yield each
            continue
        count += 1
        depth += 1
        is_whole = len(each) == _CHILDREN.get(each.tag, len(each))
        if each.tag not in MATHML_TAGS or not is_whole or count > _MAX_ELEMENTS or depth > _MAX_NESTING:
            raise _UnknownError(each.tag)
        yield f"<{each.tag}{''.join(_attributes(each))}>{_text(each)}"
        waiting.append(f"</{each.tag}>")
        waiting += reversed(each)


def _attributes(element: Element) -> Iterator[str]:
    for name, value in element.attrib.items():
        if element.tag == "menclose" and name == "notation" and value != "box":
            raise _UnknownError(value)  # browsers leave out the line that it is about
        if (name in _LENGTHS and _LENGTH.fullmatch(value)) or (name in _WORDS and _WORD.fullmatch(value)):
            yield f' {name}="{value}"'
        elif name == "notation":
            yield ' notation="box"'
        elif name in ("width", "height") and element.tag == "mspace":
            raise _UnknownError(value)


def _text(element: Element) -> str:
    # Symbols stand there as references (&#x0222B;); what users wrote does not.
    written = element.text or ""
    if _COMMAND.match(written):
        raise _UnknownError(written)
    text = html.unescape(written) if _REFERENCE.fullmatch(written) else _SPACE.sub("\xa0", written)
    return html.escape(plain(text), quote=False)


_REFERENCE: Final = re.compile(r"(?:&#x[0-9A-Fa-f]{1,6};|[A-Za-z])+")
_SPACE: Final = re.compile("&#x000A0;|&#x0200[69];")
# Braces and tabs of a table that belong to nothing that is known.
_COMMAND: Final = re.compile(r"\\[a-zA-Z]|[{}&]$")


# Finding formulas

_ENDS: Final = {"$$": "$$", "\\(": "\\)", "\\[": "\\]"}
_TEX: Final = re.compile(r"\\[a-zA-Z,;!{}|]|[_^]")
_HAS_COMMAND: Final = re.compile(r"\\[a-zA-Z]")
_OPERATOR: Final = re.compile(r"[=<>+\-*/|\u2264\u2265\u2260\u00d7\u00b7\u00b1\u2208\u2192]")
_PROSE: Final = re.compile(r"[A-Za-z]{4,}|[A-Za-z]{2,}\s+[A-Za-z]{2,}")
_SNAKE: Final = re.compile(r"(?<![A-Za-z])[A-Za-z]{2,}+_[A-Za-z]{2}|(?<![A-Z])[A-Z]{2,}+_")
_AMOUNT: Final = re.compile(
    r"\d[\d.,]*\s*(?:[kKmMbB]|bn|million|billion)?"
    r"(?:\s*(?:[-\u2013\u2014/]|to|and|or|per|a)\s*|[\s.,;:)]*$)"
)
_ORDINAL: Final = re.compile(r"(?:th|st|nd|rd|s)\b")


def formula_at(source: str, start: int) -> tuple[str, int, bool] | None:
    """Return the formula that begins at a sign, where it ends, and whether it has a line of its own."""
    opening = source[start : start + 2]
    if closing := _ENDS.get(opening):
        end = source.find(closing, start + 2, start + 2 + MAX_FORMULA)
        inner = source[start + 2 : end]
        if end < 0 or not is_formula(inner) or "`" in inner:
            return None
        if opening == "\\[" and source[end + 2 : end + 3] in ("(", "["):
            return None  # brackets that Markdown would take for a link
        return inner, end + 2, opening != "\\("
    if source[start] != "$" or _is_within_a_word(source, start):
        return None
    return _between_dollars(source, start)


def _between_dollars(source: str, start: int) -> tuple[str, int, bool] | None:
    end = start
    for _ in range(8):  # escaped ones are part of it
        end = source.find("$", end + 1, start + MAX_FORMULA)
        if end < 0 or source[end - 1] != "\\":
            break
    inner, behind = source[start + 1 : end], source[end + 1 : end + 4]
    is_apart = not behind[:1].isalnum() or _ORDINAL.match(behind) is not None
    if end < 0 or not is_apart or behind[:1] in ("{", "(", "$", "_"):
        return None
    if inner != inner.strip() or "`" in inner or not is_formula(inner, is_doubtful=True):
        return None
    return inner, end + 1, False


def _is_within_a_word(source: str, start: int) -> bool:
    before = source[start - 1 : start]
    return before.isalnum() or before in ("$", "\\", "_")


def is_formula(inner: str, *, is_doubtful: bool = False) -> bool:
    """Return whether what is between two signs is LaTeX, as far as one can tell; prose and money are not."""
    if not inner.strip():
        return False
    if _HAS_COMMAND.search(inner):
        return True
    if is_doubtful and (_AMOUNT.match(inner) and not _TEX.search(inner) and inner[-1:] not in "0123456789"):
        return False
    if is_doubtful and (_SNAKE.search(inner) or _PROSE.search(inner)):
        return False
    if _TEX.search(inner) or _OPERATOR.search(inner):
        return True
    return _PROSE.search(inner) is None
