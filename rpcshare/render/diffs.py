"""Changes to files: read from a patch, or found by comparing, and laid out in one or two columns."""

import re
from collections.abc import Iterable, Iterator
from difflib import Match, SequenceMatcher
from itertools import accumulate, groupby
from typing import ClassVar

import msgspec
from markupsafe import Markup, escape

from rpcshare.render.blocks import Block, Bounds
from rpcshare.render.figures import plural
from rpcshare.render.lenient_json import Fields
from rpcshare.render.safe_text import plain

__all__ = ["DiffBlock", "Hunk", "Row", "compared", "diff_of_file", "patched"]

_MAX_COMPARED = 800  # differing lines on each side
_MAX_STEPS = 100_000  # of comparing, about 10 ms: of two versions of a file, the usual number is below 6,000
_CONTEXT = 3
_LARGEST = 100  # times as many characters as are shown of it: what is looked at
_MAX_MARKED = 400  # characters of a line in which the changed words are marked

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,\d{1,9})? \+(\d{1,9})(?:,\d{1,9})? @@ ?(.*)")

Line = tuple[str, str]  # "+", "-" or " ", and what follows it


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
    """``added``, ``deleted``, ``modified``."""
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
    return msgspec.structs.replace(
        block,
        additions=block.additions if additions is None else diff.natural("additions"),
        deletions=block.deletions if deletions is None else diff.natural("deletions"),
        status=status if status in ("added", "deleted", "modified") else block.status,
    )


def patched(file: str, patch: str, bounds: Bounds, *, is_split: bool = False) -> DiffBlock:
    """Return a unified patch of one file."""
    lines = patch.split("\n")
    hunks: list[tuple[str, int, int, list[Line]]] = []
    for line in lines:
        if match := _HUNK.match(line):
            hunks.append((match[3], int(match[1]), int(match[2]), []))
        elif hunks and line[:1] in ("+", "-", " ") and line:
            hunks[-1][3].append((line[0], line[1:]))
        elif not file and line.startswith("+++ "):
            file = plain(line[4:]).strip()[:300].removeprefix("b/")
    if not hunks and patch.strip():
        hunks = [("", 1, 1, [(line[0], line[1:]) for line in lines if line[:1] in ("+", "-", " ") and line])]
    return _block(file, hunks, bounds, is_split=is_split)


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
        numbered = list(_numbered(kept, old_start, new_start))
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
        remark="" if total else "No lines changed.",
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


def _numbered(lines: Iterable[Line], old: int, new: int) -> Iterator[tuple[str, int, int, str]]:
    for sign, text in lines:
        yield sign, old if sign != "+" else 0, new if sign != "-" else 0, text
        old += sign != "+"
        new += sign != "-"


def _marked(lines: Iterable[tuple[str, int, int, str]]) -> Iterator[Row]:
    """Yield rows for one column; in a line that replaces one other, what differs is marked."""
    for removed, added, same in _runs(lines):
        pairs = _pairs(removed, added)
        for (sign, old, new, _), (text, _) in zip(removed, pairs, strict=False):
            yield Row(sign, old, new, text, text)
        for (sign, old, new, _), (_, text) in zip(added, pairs, strict=False):
            yield Row(sign, old, new, text, text)
        for sign, old, new, written in same:
            yield Row(sign, old, new, escape(written), escape(written))


def _split(lines: Iterable[tuple[str, int, int, str]]) -> Iterator[Row]:
    """Yield rows for two columns."""
    for removed, added, same in _runs(lines):
        for index, (old_text, new_text) in enumerate(_pairs(removed, added)):
            old = removed[index][1] if index < len(removed) else 0
            new = added[index][2] if index < len(added) else 0
            yield Row("~" if old and new else "-" if old else "+", old, new, old_text, new_text)
        for sign, old, new, written in same:
            yield Row(sign, old, new, escape(written), escape(written))


Numbered = list[tuple[str, int, int, str]]


def _runs(lines: Iterable[tuple[str, int, int, str]]) -> Iterator[tuple[Numbered, Numbered, Numbered]]:
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
        old = removed[index][3] if index < len(removed) else ""
        new = added[index][3] if index < len(added) else ""
        pairs.append(_with_marks(old, new) if is_paired else (escape(old), escape(new)))
    return pairs


def _with_marks(old: str, new: str) -> tuple[Markup, Markup]:
    """Return a line before and after a change, with what lies between what they share in ``<mark>``."""
    shortest = min(len(old), len(new))
    if max(len(old), len(new)) > _MAX_MARKED:
        return escape(old), escape(new)
    start = 0
    while start < shortest and old[start] == new[start]:
        start += 1
    end = 0
    while end < shortest - start and old[-1 - end] == new[-1 - end]:
        end += 1
    if start + end < max(len(old), len(new)) // 4:  # nearly all differs
        return escape(old), escape(new)
    return _mark(old, start, end), _mark(new, start, end)


def _mark(line: str, start: int, end: int) -> Markup:
    middle = line[start : len(line) - end]
    marked = Markup("<mark>{}</mark>").format(middle) if middle else Markup()
    return escape(line[:start]) + marked + escape(line[len(line) - end :])
