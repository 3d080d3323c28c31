"""The files that a session changed, by the newest word on each.

``session_diff`` has them all where opencode sends it. Where it is empty, prompts and tools tell of them.
"""

import math
import time
from collections.abc import Callable
from functools import lru_cache, partial

import msgspec

from rpcshare import jsontext
from rpcshare.render.lenient_json import Fields
from rpcshare.render.revert import taken_back
from rpcshare.shares.outline import Entry, FileEntry, Transcript
from rpcshare.transcripts.json_fields import JsonObject, text
from rpcshare.transcripts.opencode_changes import (
    FileCount,
    changes_of_message,
    changes_of_part,
    counts_of_part,
    short_path,
)
from rpcshare.transcripts.unified_patch import read_patch

__all__ = ["ChangedFile", "changed_files", "changed_files_in_time"]


class ChangedFile(msgspec.Struct, frozen=True):
    """Where the newest FileDiff of a file stands, and how many lines it changes."""

    additions: int
    deletions: int
    source: bytes
    """The JSON of the FileDiff, or of the message or part that holds it."""
    kind: str = ""
    """``message`` or ``part``; empty for a FileDiff."""
    place: int = 0
    """Its place in what the message or part tells of."""

    def body(self) -> bytes:
        """Return the JSON of the FileDiff."""
        if not self.kind:
            return self.source
        found = changes_of_message(self.source) if self.kind == "message" else changes_of_part(self.source)
        return jsontext.encode((found or [{}])[self.place])


class _Counts(msgspec.Struct):
    additions: object = None
    deletions: object = None


_decode_counts = msgspec.json.Decoder(_Counts).decode


def changed_files(transcript: Transcript) -> list[ChangedFile]:
    """Return the files, in the order in which they were first changed."""
    files = changed_files_in_time(transcript, math.inf)
    return files if files is not None else []


def changed_files_in_time(
    transcript: Transcript, seconds: float, now: Callable[[], float] = time.thread_time
) -> list[ChangedFile] | None:
    """Return the files, or None if that takes more than ``seconds`` of CPU time: the next call goes on."""
    known: list[ChangedFile] | None = transcript.__dict__.get("changed_files")
    if known is None:
        if transcript.files:
            known = [_of_session(file) for file in transcript.files]
        else:
            known = _of_turns(transcript, now() + seconds, now)
        if known is not None:
            transcript.__dict__["changed_files"] = known
    return known


def _of_turns(transcript: Transcript, end: float, now: Callable[[], float]) -> list[ChangedFile] | None:
    directory = Fields.decode(transcript.session).raw("directory")
    short = lru_cache(maxsize=None)(partial(short_path, directory=directory))
    back = taken_back(transcript)
    files: dict[str, ChangedFile] = {}
    is_told = False  # whether the message that began the turn says what the turn changed
    for index, entry in enumerate(transcript.entries):
        if "changes" not in entry.__dict__ and now() > end:
            return None
        of_message, of_parts = _of_entry(entry)
        if b'"user"' in (entry.body or b""):
            is_told = of_message is not None
        kept = len(entry.parts) if back is None else back.kept_parts(index, entry)
        if kept or not entry.parts:
            for name, file in of_message or ():
                files[short(name)] = file
        if is_told:
            continue
        for place, name, file in of_parts:
            if place < kept:
                files[short(name)] = file
    return list(files.values())


_Named = list[tuple[str, ChangedFile]]


def _of_entry(entry: Entry) -> tuple[_Named | None, list[tuple[int, str, ChangedFile]]]:
    """Return what a message tells of its turn, and its parts of themselves; kept with the message."""
    known: tuple[_Named | None, list[tuple[int, str, ChangedFile]]] | None = entry.__dict__.get("changes")
    if known is None:
        told = changes_of_message(entry.body)
        of_message = None
        if told is not None and entry.body is not None:
            of_message = [
                (_name(diff), ChangedFile(*_counted(diff), entry.body, "message", place))
                for place, diff in enumerate(told)
            ]
        of_parts = [
            (place, name, ChangedFile(additions, deletions, part.body, "part", number))
            for place, part in enumerate(entry.parts)
            for number, (name, additions, deletions) in enumerate(_of_part(part.body))
        ]
        known = entry.__dict__["changes"] = (of_message, of_parts)
    return known


def _of_part(body: bytes) -> list[FileCount]:
    counts = counts_of_part(body)
    if counts is None:
        counts = [FileCount(_name(diff), *_counted(diff)) for diff in changes_of_part(body)]
    return counts


def _name(diff: JsonObject) -> str:
    return text(diff, "file", "path", "filePath")


def _counted(diff: JsonObject) -> tuple[int, int]:
    fields = Fields(diff)
    if "additions" in fields or "deletions" in fields:
        return fields.natural("additions"), fields.natural("deletions")
    if patch := fields.raw("patch", "diff"):
        files = read_patch(patch)
        if files:
            return files[0].additions, files[0].deletions
        lines = patch.split("\n")
        return sum(line[:1] == "+" for line in lines), sum(line[:1] == "-" for line in lines)
    return len(fields.raw("after").splitlines()), len(fields.raw("before").splitlines())


def _of_session(file: FileEntry) -> ChangedFile:
    known: ChangedFile | None = file.__dict__.get("changed")
    if known is None:
        try:
            counts = _decode_counts(file.body)
            fields = Fields({"+": counts.additions, "-": counts.deletions})
        except (msgspec.DecodeError, UnicodeDecodeError):
            diff = Fields.decode(file.body)
            fields = Fields({"+": diff.value("additions"), "-": diff.value("deletions")})
        known = ChangedFile(fields.natural("+"), fields.natural("-"), file.body)
        file.__dict__["changed"] = known
    return known
