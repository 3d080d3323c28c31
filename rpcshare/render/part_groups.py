"""Neighbouring parts that are shown as one: what was thought, and runs of files that were only read."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from rpcshare.render.figures import plural
from rpcshare.render.safe_text import plain
from rpcshare.shares.outline import PartEntry
from rpcshare.transcripts.opencode_changes import short_path

__all__ = ["PartGroup", "first_bold_line", "groups_of", "with_neighbours"]

_LEAST: Final = {"thought": 2, "read": 3}
_READING: Final = {"read": "read", "grep": "search", "glob": "search", "list": "search", "ls": "search"}
_SAID: Final = frozenset({"length", "content-filter", "error"})  # of why a step ended
_NAMES: Final = 4  # of files, in a group's heading
_LOOKED_AT: Final = 300  # characters of a thought
_BOLD: Final = re.compile(r"\s*\*\*([^*\n]{1,200})\*\*")


class PartGroup(msgspec.Struct, frozen=True):
    """Parts of a message, from ``first`` until before ``last``, and how they are called together."""

    first: int
    last: int
    kind: str
    """``thought`` or ``read``."""
    label: str
    title: str


class _Input(msgspec.Struct, rename={"file_path": "filePath"}):
    file_path: str = ""


class _State(msgspec.Struct):
    status: str = ""
    input: _Input = msgspec.field(default_factory=_Input)


class _Part(msgspec.Struct):
    type: str = ""
    tool: str = ""
    text: str = ""
    reason: str = ""
    state: _State = msgspec.field(default_factory=_State)


class _Member(msgspec.Struct, frozen=True):
    kind: str
    """``thought``, ``read``, ``unseen``, or empty for what stands alone."""
    is_search: bool = False
    text: str = ""
    """Its first bold line, or the file that was read."""


_decode = msgspec.json.Decoder(_Part).decode
_ALONE: Final = _Member("")


def groups_of(parts: Sequence[tuple[int, PartEntry]], directory: str) -> list[PartGroup]:
    """Return the groups among some parts of a message, which follow each other, with their places."""
    groups: list[PartGroup] = []
    run: list[tuple[int, _Member]] = []
    for place, member in [*((place, _member(part.body)) for place, part in parts), (-1, _ALONE)]:
        if run and member.kind not in ("unseen", run[0][1].kind):
            groups += _group(run, directory)
            run = []
        if run or member.kind in _LEAST:
            run.append((place, member))
    return groups


def with_neighbours(parts: Sequence[PartEntry], places: Sequence[int]) -> list[int]:
    """Return some places among the parts of a message, and those of all that may be in a group with them."""
    found = set(places)
    for place in places:
        for step in (-1, 1):
            other = place + step
            while 0 <= other < len(parts) and other not in found and _member(parts[other].body).kind:
                found.add(other)
                other += step
    return sorted(found)


def first_bold_line(text: str) -> str:
    """Return what a thought is called: models begin one with a line in bold."""
    match = _BOLD.match(text[:_LOOKED_AT])
    return " ".join(plain(match[1]).split()) if match else ""


def _member(body: bytes) -> _Member:
    if b'"reasoning"' not in body and b'"tool"' not in body and b'"step-' not in body:
        return _ALONE
    try:
        part = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _ALONE
    reading = _READING.get(part.tool.lower()) if part.state.status == "completed" else None
    match part.type:
        case "reasoning" if part.text.strip():
            return _Member("thought", text=first_bold_line(part.text))
        case "tool" if reading:
            return _Member("read", reading == "search", part.state.input.file_path)
        case "reasoning" | "step-start" | "step-finish" if part.reason not in _SAID:
            return _Member("unseen")
    return _ALONE


def _group(run: list[tuple[int, _Member]], directory: str) -> Iterator[PartGroup]:
    while run[-1][1].kind == "unseen":
        run.pop()
    kind = run[0][1].kind
    members = [member for _, member in run if member.kind == kind]
    if len(members) < _LEAST[kind]:
        return
    first, last = run[0][0], run[-1][0] + 1
    if kind == "thought":
        title = next((member.text for member in members if member.text), "")
        yield PartGroup(first, last, kind, "Thought", title)
        return
    names = list(dict.fromkeys(short_path(each.text, directory) for each in members if each.text))
    searches = sum(each.is_search for each in members)
    read = len(members) - searches
    said = [f"Read {plural(len(names) if names and read else read, 'file')}"] if read else []
    if searches:
        said.append(f"{'searched' if said else 'Searched'} {plural(searches, 'time')}")
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    yield PartGroup(first, last, kind, ", ".join(said), plain(", ".join(names[:_NAMES]))[:300] + more)
