"""Changes to files: read from a patch, or found by comparing, and laid out in one or two columns."""

from collections.abc import Iterable, Iterator
from difflib import Match, SequenceMatcher
from itertools import accumulate, groupby
from typing import ClassVar

import msgspec
from markupsafe import Markup

from rpcshare.render.blocks import Block, Bounds
from rpcshare.render.figures import plural
from rpcshare.render.highlighting import CodeLine, coloured_lines, language_of
from rpcshare.render.lenient_json import Fields
from rpcshare.render.safe_text import plain
from rpcshare.transcripts.unified_patch import FilePatch, PatchHunk, read_patch

__all__ = ["DiffBlock", "Hunk", "Row", "compared", "diff_of_file", "patched"]

_MAX_COMPARED = 800  # differing lines on each side
_MAX_STEPS = 100_000  # of comparing, about 10 ms: of two versions of a file, the usual number is below 6,000
_CONTEXT = 3
_LARGEST = 100  # times as many characters as are shown of it: what is looked at
_MAX_MARKED = 400  # characters of a line in which the changed words are marked

Line = tuple[str, str]  # "+", "-" or " ", and what follows it
NumberedLine = tuple[str, int, int, CodeLine]  # sign, old and new number, content
Numbered = list[NumberedLine]


class Row(msgspec.Struct, frozen=True):
    """A line of a diff in one column: or of two, where ``old`` and ``new`` differ."""

    sign: str
    """``+``, ``-``, space; ``~`` in two columns, for a line that was changed."""
    old_number: int
    """0: there is none."""
    new_number: int
    old: Markup
    new: Markup


class Hunk(msgspec.Struct, frozen=True):
    """Lines that follow each other in a file."""

    heading: str
    rows: list[Row]


class DiffBlock(Block, frozen=True):
    """What changed in one file."""

    form: ClassVar[str] = "diff"
    file: str
    status: str
    """``added``, ``deleted``, ``renamed``, ``copied``, ``modified``."""
    additions: int
    deletions: int
    hunks: list[Hunk]
    is_split: bool = False
    remark: str = ""
    """Why there are no lines."""
    cut: str = ""


def diff_of_file(diff: Fields, bounds: Bounds, *, is_split: bool = False) -> DiffBlock:
    """Return a FileDiff, of which opencode has had two shapes: with a patch, or with the whole file twice."""
    file = diff.line("file", "path", "filePath")
    patch = diff.raw("patch", "diff")
    before, after = diff.raw("before"), diff.raw("after")
    if max(len(patch), len(before), len(after)) > bounds.characters * _LARGEST:
        remark = "Too large to be shown." if bounds.is_whole else "Too large to be shown among others."
        cut = "" if bounds.is_whole else "whole"
        block = DiffBlock(file, "modified", 0, 0, [], is_split, remark, cut)
    elif patch:
        block = patched(file, patch, bounds, is_split=is_split)
    else:
        block = compared(file, before, after, bounds, is_split=is_split)
    additions, deletions = diff.number("additions"), diff.number("deletions")
    status = diff.line("status")
    block = msgspec.structs.replace(
        block,
        additions=block.additions if additions is None else diff.natural("additions"),
        deletions=block.deletions if deletions is None else diff.natural("deletions"),
        status=status if status in _STATUSES else block.status,
    )
    if block.hunks or block.cut or (patch and block.remark):
        remarks = [block.remark]
    else:
        remarks = [block.remark or _without_lines(block.status, block.additions + block.deletions)]
    if (source := diff.line("from")) and block.status == "renamed" and "Renamed" not in block.remark:
        remarks.insert(0, f"Renamed from {source}.")
    if diff.flag("isExcerpt"):
        remarks.append("Line numbers count from where the edit begins: what it did to the file is not told.")
    return msgspec.structs.replace(block, remark=" ".join(filter(None, remarks)))


_STATUSES = ("added", "deleted", "modified", "renamed", "copied")


def _without_lines(status: str, changed: int) -> str:
    """Return what is said of a file of which there are no lines."""
    if changed:
        return "Which lines were changed was not shared."
    said = {
        "added": "A new file without lines: it is empty, or binary.",
        "deleted": "Deleted; it was empty, or binary.",
        "renamed": "Its content stayed as it was.",
        "copied": "Its content stayed as it was.",
    }
    return said.get(status, "No lines to show: the file is binary, or only its mode or time changed.")


def patched(file: str, patch: str, bounds: Bounds, *, is_split: bool = False) -> DiffBlock:
    """Return a unified patch of one file; of several, the one of that name, or the first."""
    files = read_patch(patch)
    name = file.replace("\\", "/")
    held = next((each for each in files if name and each.path.replace("\\", "/").endswith(name)), None)
    held = held or (files[0] if files else FilePatch())
    if not held.hunks and patch.strip() and len(files) <= 1 and not (held.status or held.is_binary):
        lines = [
            (line[0], line[1:])
            for line in patch.split("\n")
            if line[:1] in ("+", "-", " ") and line and not line.startswith(("--- ", "+++ "))
        ]
        held.hunks = [PatchHunk("", 1, 1, lines)] if lines else []
    hunks = [(each.heading, each.old_start, each.new_start, each.lines) for each in held.hunks]
    block = _block(
        file or plain(held.path).strip()[:300], _line_endings_off(hunks), bounds, is_split=is_split
    )
    status = held.status or ("modified" if held.old_mode else block.status)
    remark = " ".join(_said(held, block))
    return msgspec.structs.replace(block, status=status, remark=remark)


Hunks = list[tuple[str, int, int, list[Line]]]


def _line_endings_off(hunks: Hunks) -> Hunks:
    """Return lines without the carriage returns that end them: :func:`_said` tells of those that changed."""
    return [
        (heading, old, new, [(sign, text.removesuffix("\r")) for sign, text in lines])
        for heading, old, new, lines in hunks
    ]


def _said(file: FilePatch, block: DiffBlock) -> Iterator[str]:  # noqa: C901 -- one branch a kind
    """Yield what a patch does to a file beside its lines."""
    if file.status in ("renamed", "copied") and file.old_path:
        yield f"{file.status.title()} from {plain(file.old_path)[:300]}."
    if file.old_mode and file.new_mode:
        yield f"{_mode_change(file.old_mode, file.new_mode)}."
    if file.is_binary:
        yield "A binary file."
    elif not file.hunks and file.status == "added":
        yield "A new, empty file."
    elif not file.hunks and file.status == "deleted":
        yield "Deleted; it was empty."
    elif not file.hunks and file.status in ("renamed", "copied"):
        yield "Its content stayed as it was."
    elif not file.hunks and not file.old_mode:
        yield _without_lines(block.status, 0)
    if ending := _ending_change(file):
        yield f"Only the line endings changed, {ending}."
    old, new = file.old_ends_without_newline, file.new_ends_without_newline
    if old and new:
        yield "No newline at the end of the file."
    elif new:
        yield "No newline at the end of the new version." if file.deletions else "No newline at the end."
    elif old:
        yield "The old version had no newline at its end."


def _mode_change(old: str, new: str) -> str:
    if (old[:3], old[-3:], new[:3], new[-3:]) == ("100", "644", "100", "755"):
        return "Made executable"
    if (old[:3], old[-3:], new[:3], new[-3:]) == ("100", "755", "100", "644"):
        return "Made not executable"
    return f"Mode changed from {plain(old)[:12]} to {plain(new)[:12]}"


def _ending_change(file: FilePatch) -> str:
    """Return how line endings changed, if nothing else did."""
    lines = [line for hunk in file.hunks for line in hunk.lines]
    old = [text for sign, text in lines if sign == "-"]
    new = [text for sign, text in lines if sign == "+"]
    if not old or len(old) != len(new) or old == new:
        return ""
    if [text.removesuffix("\r") for text in old] != [text.removesuffix("\r") for text in new]:
        return ""
    had, has = (sum(text.endswith("\r") for text in side) for side in (old, new))
    return "from CRLF to LF" if had > has else "from LF to CRLF"


def compared(file: str, before: str, after: str, bounds: Bounds, *, is_split: bool = False) -> DiffBlock:
    """Return how ``after`` differs from ``before``."""
    old, new = _lines(before), _lines(after)
    remark = ""
    try:
        hunks = list(_hunks(old, new, steps=0 if bounds.is_plain else _MAX_STEPS))
    except _TooManyStepsError:
        hunks = [_replaced(old, new)]
        remark = "Shown as lines removed and added: finding those that stayed takes too long."
    block = _block(file, [("", *hunk) for hunk in hunks], bounds, is_split=is_split)
    return msgspec.structs.replace(block, remark=remark) if remark else block


def _block(
    file: str, hunks: list[tuple[str, int, int, list[Line]]], bounds: Bounds, *, is_split: bool
) -> DiffBlock:
    additions = sum(sign == "+" for _, _, _, lines in hunks for sign, _ in lines)
    deletions = sum(sign == "-" for _, _, _, lines in hunks for sign, _ in lines)
    total = sum(len(lines) for _, _, _, lines in hunks)
    room, characters = bounds.lines, bounds.characters * 2
    shown = []
    for heading, old_start, new_start, lines in hunks:
        kept = []
        for sign, text in lines[:room]:
            characters -= len(text)
            if characters < 0:
                break
            kept.append((sign, plain(text)))
        room -= len(kept)
        language = language_of(file) if bounds.has_colours else ""
        numbered = list(_numbered(_coloured(kept, language), old_start, new_start))
        rows = list(_split(numbered) if is_split else _marked(numbered))
        if rows:
            shown.append(Hunk(plain(heading)[:200], rows))
        if room <= 0 or characters < 0:
            break
    kept_lines = bounds.lines - room
    contexts = total - additions - deletions
    status = "modified"
    if total and not deletions and not contexts and hunks[0][1] <= 1:
        status = "added"
    elif total and not additions and not contexts and hunks[0][2] <= 1:
        status = "deleted"
    return DiffBlock(
        file,
        status,
        additions,
        deletions,
        shown,
        is_split,
        cut=plural(total, "line") if kept_lines < total else "",
    )


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


class _TooManyStepsError(Exception):
    pass


class _BoundedMatcher(SequenceMatcher[str]):
    """Counts the pairs of equal lines that it looks at, and gives up when they are too many."""

    def __init__(self, old: list[str], new: list[str], steps: int) -> None:
        super().__init__(None, old, new)
        self._steps_left = steps
        self._number = len(old)
        places: dict[str, list[int]] = self.b2j  # type: ignore[attr-defined]  # documented, but not in typeshed
        # To look for old lines i to j takes as many steps as they have counterparts.
        self._steps_until = [0, *accumulate(1 + len(places.get(line, ())) for line in old)]

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> Match:
        last = self._number if ahi is None else ahi
        self._steps_left -= self._steps_until[last] - self._steps_until[alo]
        if self._steps_left < 0:
            raise _TooManyStepsError
        return super().find_longest_match(alo, ahi, blo, bhi)


def _replaced(old: list[str], new: list[str]) -> tuple[int, int, list[Line]]:
    """Return all that is between what the two begin and end with in common, removed and added."""
    start, end = _shared(old, new)
    lines = [("-", line) for line in old[start : len(old) - end]]
    lines += [("+", line) for line in new[start : len(new) - end]]
    return start + 1, start + 1, lines


def _shared(old: list[str], new: list[str]) -> tuple[int, int]:
    """Return with how many equal lines the two begin, and end."""
    shortest = min(len(old), len(new))
    start = 0
    while start < shortest and old[start] == new[start]:
        start += 1
    end = 0
    while end < shortest - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return start, end


def _hunks(old: list[str], new: list[str], *, steps: int) -> Iterator[tuple[int, int, list[Line]]]:
    """Yield where the two differ, with some lines around.

    Raises:
        _TooManyStepsError: comparing takes more than ``steps``.
    """
    start, end = _shared(old, new)
    removed, added = old[start : len(old) - end], new[start : len(new) - end]
    if not removed and not added:
        return
    lead = min(start, _CONTEXT)
    tail = min(end, _CONTEXT)
    first = start - lead
    one = old[first : len(old) - end + tail]
    other = new[first : len(new) - end + tail]
    if not removed or not added:
        lines = [("-", line) for line in removed] + [("+", line) for line in added]
        yield first + 1, first + 1, [*_same(one[:lead]), *lines, *_same(one[len(one) - tail :])]
        return
    if max(len(removed), len(added)) > _MAX_COMPARED:
        raise _TooManyStepsError
    for group in _BoundedMatcher(one, other, steps).get_grouped_opcodes(_CONTEXT):
        lines = []
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines += _same(one[i1:i2])
            else:
                lines += [("-", line) for line in one[i1:i2]]
                lines += [("+", line) for line in other[j1:j2]]
        yield first + group[0][1] + 1, first + group[0][3] + 1, lines


def _same(lines: list[str]) -> list[Line]:
    return [(" ", line) for line in lines]


def _coloured(lines: list[Line], language: str) -> list[tuple[str, CodeLine]]:
    """Return lines with their tokens: each side is read as one text, for tokens may span lines."""
    old = iter(coloured_lines([text for sign, text in lines if sign != "+"], language))
    new = iter(coloured_lines([text for sign, text in lines if sign != "-"], language))
    made = []
    for sign, _ in lines:
        before = next(old) if sign != "+" else None
        after = next(new) if sign != "-" else None
        made.append((sign, after if after is not None else before or CodeLine([])))
    return made


def _numbered(lines: Iterable[tuple[str, CodeLine]], old: int, new: int) -> Iterator[NumberedLine]:
    for sign, text in lines:
        yield sign, old if sign != "+" else 0, new if sign != "-" else 0, text
        old += sign != "+"
        new += sign != "-"


def _marked(lines: Iterable[NumberedLine]) -> Iterator[Row]:
    """Yield rows for one column; in a line that replaces one other, what differs is marked."""
    for removed, added, same in _runs(lines):
        pairs = _pairs(removed, added)
        for (sign, old, new, _), (text, _) in zip(removed, pairs, strict=False):
            yield Row(sign, old, new, text, text)
        for (sign, old, new, _), (_, text) in zip(added, pairs, strict=False):
            yield Row(sign, old, new, text, text)
        for sign, old, new, written in same:
            yield Row(sign, old, new, written.html(), written.html())


def _split(lines: Iterable[NumberedLine]) -> Iterator[Row]:
    """Yield rows for two columns."""
    for removed, added, same in _runs(lines):
        for index, (old_text, new_text) in enumerate(_pairs(removed, added)):
            old = removed[index][1] if index < len(removed) else 0
            new = added[index][2] if index < len(added) else 0
            yield Row("~" if old and new else "-" if old else "+", old, new, old_text, new_text)
        for sign, old, new, written in same:
            yield Row(sign, old, new, written.html(), written.html())


def _runs(lines: Iterable[NumberedLine]) -> Iterator[tuple[Numbered, Numbered, Numbered]]:
    """Yield (removed, added, unchanged) lines that belong together."""
    for is_same, group in groupby(lines, lambda line: line[0] == " "):
        run = list(group)
        if is_same:
            yield [], [], run
        else:
            yield [line for line in run if line[0] == "-"], [line for line in run if line[0] == "+"], []


def _pairs(removed: Numbered, added: Numbered) -> list[tuple[Markup, Markup]]:
    is_paired = len(removed) == len(added)
    pairs = []
    for index in range(max(len(removed), len(added))):
        old = removed[index][3] if index < len(removed) else CodeLine([])
        new = added[index][3] if index < len(added) else CodeLine([])
        pairs.append(_with_marks(old, new) if is_paired else (old.html(), new.html()))
    return pairs


def _with_marks(before: CodeLine, after: CodeLine) -> tuple[Markup, Markup]:
    """Return a line before and after a change, with what lies between what they share in ``<mark>``."""
    old, new = before.text, after.text
    shortest = min(len(old), len(new))
    if max(len(old), len(new)) > _MAX_MARKED:
        return before.html(), after.html()
    start = 0
    while start < shortest and old[start] == new[start]:
        start += 1
    end = 0
    while end < shortest - start and old[-1 - end] == new[-1 - end]:
        end += 1
    if not start + end or start + end < max(len(old), len(new)) // 4:  # nearly all differs
        return before.html(), after.html()
    return before.html(start, len(old) - end), after.html(start, len(new) - end)
