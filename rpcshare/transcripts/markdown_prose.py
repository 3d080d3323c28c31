"""Text that anybody wrote, as a part of a Markdown document that stays what it is.

Prose keeps its Markdown. What would act outside of it is taken away: HTML, headings that look like the
document's own, code that does not end, links that run a script, images that load, and control characters.
"""

import re

__all__ = ["code_span", "line", "prose", "quoted"]

# Controls but tab and line feed, and what reorders text (UAX #9).
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPES = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b\n]*(?:\x07|\x1b\\\\)?)")

# At the beginning of a line a fence is in no list, and in no quote.
_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)")
_HEADING = re.compile(r"( {0,3})(#{1,6})(?=\s|$)")
_UNDERLINE = re.compile(r"\s*(?:=+|-+)\s*")
_DEFINITION = re.compile(r"( {0,3})\[(?=[^\]\n]*\]:)")
_TICKS = re.compile("`+")
_TARGET = re.compile(r"\]\((?!\s*<?(?:https?://|mailto:|[#/.?]|[\w-]+[/)\s#?.]))", re.IGNORECASE)

_SHIFT = 2  # levels: the document's own headings are of the first two


def clean(text: str) -> str:
    """Return text without what drives a terminal or reorders lines."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def line(text: str, limit: int = 300) -> str:
    """Return text as one line in which no character means anything."""
    words = " ".join(clean(text).split())
    cut = words if len(words) <= limit else words[: limit - 1] + "…"
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$-])", r"\\\1", cut)


def code_span(text: str, limit: int = 300) -> str:
    """Return text as inline code (CommonMark 0.31, section 6.1)."""
    words = " ".join(clean(text).split())
    cut = words if len(words) <= limit else words[: limit - 1] + "…"
    if not cut:
        return ""
    ticks = "`" * (max((len(run) for run in _TICKS.findall(cut)), default=0) + 1)
    space = " " if cut.startswith("`") or cut.endswith("`") else ""
    return f"{ticks}{space}{cut}{space}{ticks}"


def prose(text: str) -> str:
    """Return Markdown that somebody wrote, to stand in a document.

    Where a fence may be within a list, or does not end, it becomes a block quote, which ends with itself.
    """
    made: list[str] = []
    fence = ""
    is_nested = False
    for written in clean(text).split("\n"):
        match = _FENCE.match(written)
        if fence:
            is_end = match is not None and not match["info"].strip() and _closes(match["fence"], fence)
            fence = "" if is_end else fence
            made.append(written)
        elif match is not None and not (match["fence"][0] == "`" and "`" in match["info"]):
            fence = match["fence"]
            made.append(written)
        else:
            is_nested = is_nested or "```" in written or "~~~" in written
            made.append(_line_of_prose(written))
    whole = "\n".join(made).strip("\n")
    return quoted(whole) if fence or is_nested else whole


def quoted(text: str) -> str:
    """Return Markdown as a block quote."""
    return "\n".join(f"> {each}".rstrip() for each in text.split("\n"))


def _closes(fence: str, opening: str) -> bool:
    return fence[0] == opening[0] and len(fence) >= len(opening)


def _line_of_prose(written: str) -> str:
    if _UNDERLINE.fullmatch(written):
        return "***" if len(written.strip()) > 2 else ""
    heading = _HEADING.match(written)
    if heading is not None:
        marks = "#" * min(6, len(heading[2]) + _SHIFT)
        written = f"{heading[1]}{marks}{written[heading.end() :]}"
    definition = _DEFINITION.match(written)
    if definition is not None:
        written = f"{definition[1]}\\[{written[definition.end() :]}"
    return "".join(piece if is_code else _escaped(piece) for piece, is_code in _spans(written))


def _escaped(text: str) -> str:
    return _TARGET.sub(r"]\\(", text.replace("<", "&lt;").replace("![", "\\!["))


def _spans(written: str) -> list[tuple[str, bool]]:
    """Return the pieces of a line: which are inline code, and which are not."""
    if "`" not in written:
        return [(written, False)]
    runs = [(match.start(), match.end()) for match in _TICKS.finditer(written)]
    ends: dict[int, list[int]] = {}  # of each length, which runs have it, the last one first
    for number in range(len(runs) - 1, -1, -1):
        ends.setdefault(runs[number][1] - runs[number][0], []).append(number)
    pieces: list[tuple[str, bool]] = []
    place = number = 0
    while number < len(runs):
        start, end = runs[number]
        same = ends[end - start]
        while same and same[-1] <= number:
            same.pop()
        if same:
            closing = runs[same[-1]][1]
            pieces += ((written[place:start], False), (written[start:closing], True))
            place, number = closing, same[-1]
        number += 1
    pieces.append((written[place:], False))
    return pieces
