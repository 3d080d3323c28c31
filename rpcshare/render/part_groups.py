"""Neighbouring parts that are shown as one: thoughts, runs of files that were only read, and context."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from rpcshare.render.figures import plural
from rpcshare.render.safe_text import plain
from rpcshare.shares.outline import PartEntry
from rpcshare.transcripts.opencode_changes import short_path

__all__ = ["PartGroup", "entry_name", "first_bold_line", "groups_of", "is_context_alone", "with_neighbours"]

_LEAST: Final = {"thought": 2, "read": 3, "context": 2}
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
    """``thought``, ``read`` or ``context``."""
    label: str
    title: str


class _Input(msgspec.Struct, rename={"file_path": "filePath"}):
    file_path: str = ""
    path: str = ""


class _State(msgspec.Struct):
    status: str = ""
    input: _Input = msgspec.field(default_factory=_Input)


class _Part(msgspec.Struct):
    type: str = ""
    tool: str = ""
    text: str = ""
    reason: str = ""
    synthetic: bool = False
    ignored: bool = False
    metadata: object = None
    state: _State = msgspec.field(default_factory=_State)


class _Member(msgspec.Struct, frozen=True):
    kind: str
    """``thought``, ``read``, ``context``, ``unseen``, or empty for what stands alone."""
    is_search: bool = False
    text: str = ""
    """Its first bold line, the file that was read, or what the context is called."""


_decode = msgspec.json.Decoder(_Part).decode
# One of them is in every part that may be in a group.
_WORDS: Final = (b'"reasoning"', b'"tool"', b'"step-', b'"synthetic"', b'"ignored"')
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


def is_context_alone(parts: Sequence[PartEntry]) -> bool:
    """Return whether all that is seen of some parts was added by a program."""
    is_found = False
    for part in parts:
        kind = _member(part.body).kind
        if kind not in ("context", "unseen"):
            return False
        is_found = is_found or kind == "context"
    return is_found


def entry_name(metadata: object) -> str:
    """Return what a part's metadata call a piece of context; empty if they do not."""
    name = metadata.get("entry") if isinstance(metadata, dict) else None
    return " ".join(plain(name[:_LOOKED_AT]).split()) if isinstance(name, str) else ""


def first_bold_line(text: str) -> str:
    """Return what a thought is called: models begin one with a line in bold."""
    match = _BOLD.match(text[:_LOOKED_AT])
    return " ".join(plain(match[1]).split()) if match else ""


def _member(body: bytes) -> _Member:
    try:
        part = _decode(body) if any(word in body for word in _WORDS) else _Part()
    except (msgspec.DecodeError, UnicodeDecodeError):
        part = _Part()
    reading = _READING.get(part.tool.lower()) if part.state.status == "completed" else None
    match part.type:
        case "reasoning" if part.text.strip():
            return _Member("thought", text=first_bold_line(part.text))
        case "text" if (part.synthetic or part.ignored) and part.text.strip():
            return _Member("context", text=entry_name(part.metadata))
        case "tool" if reading:
            given = part.state.input
            file = given.file_path or (given.path if reading == "read" else "")
            return _Member("read", reading == "search", file)
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
    if kind == "context":
        told = ", ".join(dict.fromkeys(member.text for member in members if member.text))
        title = told[: _LOOKED_AT - 1] + "…" if len(told) > _LOOKED_AT else told
        yield PartGroup(first, last, kind, "Context", title or plural(len(members), "piece"))
        return
    names = list(dict.fromkeys(short_path(each.text, directory) for each in members if each.text))
    searches = sum(each.is_search for each in members)
    read = len(members) - searches
    said = [f"Read {plural(len(names) if names and read else read, 'file')}"] if read else []
    if searches:
        said.append(f"{'searched' if said else 'Searched'} {plural(searches, 'time')}")
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    yield PartGroup(first, last, kind, ", ".join(said), plain(", ".join(names[:_NAMES]))[:300] + more)
