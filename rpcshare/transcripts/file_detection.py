"""Finds out what a file is, and reads the session in it."""

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rpcshare import jsontext
from rpcshare.transcripts import opencode
from rpcshare.transcripts.claude_code import is_claude_code, read_claude_code
from rpcshare.transcripts.codex import is_codex, is_old_codex, read_codex
from rpcshare.transcripts.gemini_cli import (
    is_gemini_chat,
    is_gemini_checkpoint,
    is_gemini_lines,
    is_gemini_log,
    read_gemini_chat,
    read_gemini_checkpoint,
    read_gemini_lines,
    read_gemini_log,
)
from rpcshare.transcripts.json_fields import JsonObject, objects
from rpcshare.transcripts.opencode_v2 import is_v2_export, read_v2_export
from rpcshare.transcripts.session_file import LocatedItem, SessionFile, SessionFileError

__all__ = ["read_session_file", "read_session_folder"]

TAKES = (
    "SyncData (a JSON list, or one a line), an AgentSession, what `opencode export` prints, a storage folder "
    "of opencode, or a transcript of Claude Code, Codex or Gemini CLI"
)

# What the first bytes of other files are.
_MAGIC = (
    (b"SQLite format 3\0", "an SQLite database; of opencode's, `opencode export` makes a file"),
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\x89PNG\r\n", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"\x7fELF", "a program"),
)
_LINE_BEFORE = re.compile(rb"(?:[^\n]*\n(?=\s*[\[{])|Exporting session: [\w-]{1,256}(?=\{))")
_SHOWN_KEYS = 5


def read_session_folder(folder: Path, session_id: str | None = None) -> SessionFile:
    """Return the session in a folder, which is opencode's storage or holds it.

    Raises:
        SessionFileError: it is none, or does not say which session is meant.
        OSError: a file cannot be read.
    """
    for each in (folder, folder / "storage"):
        if opencode.is_storage(each):
            return opencode.read_storage(each, session_id)
    transcripts = len([*folder.glob("*.jsonl")])
    seems = (
        f"a folder with {transcripts} files of JSON lines: name one of them" if transcripts else "a folder"
    )
    raise SessionFileError(f"seems to be {seems}; taken are {TAKES}")


def read_session_file(content: bytes, session_id: str | None = None) -> SessionFile:
    """Return the session in the content of a file, whichever of the known forms it has.

    Args:
        content: of the file.
        session_id: under which it is to be shared; it chooses, where a file holds several.

    Raises:
        SessionFileError: it has none of the forms, or is none of them entirely.
    """
    content = _in_utf8(content)
    if not content.strip():
        raise SessionFileError("is empty")
    for magic, name in _MAGIC:
        if content.startswith(magic):
            raise SessionFileError(f"seems to be {name}; taken are {TAKES}")
    try:
        return _of_document(jsontext.decode(content), session_id)
    except jsontext.JSONDecodeError as exc:
        lines = _Lines.of(content)
        if lines is None:
            document = _behind_a_line(content)
            if document is None:
                raise SessionFileError(_no_json(content, exc)) from None
            return _of_document(document, session_id)
    return _of_lines(lines, session_id)


def _in_utf8(content: bytes) -> bytes:
    """Return the content without a mark of byte order. PowerShell writes what it redirects in UTF-16."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16").encode()
        except UnicodeError:
            return content  # of which is told that it is not UTF-8
    return content.removeprefix(codecs.BOM_UTF8)


def _behind_a_line(content: bytes) -> object:
    """Return the document behind a line that a program printed before it; None if there is none."""
    before = _LINE_BEFORE.match(content)
    if before is None or content.lstrip()[:1] in (b"{", b"["):
        return None
    try:
        return jsontext.decode(content[before.end() :])
    except jsontext.JSONDecodeError:
        return None


def _of_document(value: object, session_id: str | None) -> SessionFile:
    if isinstance(value, list):
        return _of_list(value, session_id)
    if not isinstance(value, dict):
        raise SessionFileError(f"seems to be a single JSON value; taken are {TAKES}")
    known: tuple[tuple[bool, Callable[[], SessionFile]], ...] = (
        (is_v2_export(value), lambda: read_v2_export(value)),
        (opencode.is_export(value), lambda: opencode.read_export(value)),
        (is_old_codex(value), lambda: read_codex([value["session"], *objects(value["items"])], session_id)),
        (is_gemini_chat(value), lambda: read_gemini_chat(value, session_id)),
        (
            isinstance(value.get("history"), list) and is_gemini_checkpoint(value["history"]),
            lambda: read_gemini_checkpoint(value["history"], session_id),
        ),
        ("session" in value, lambda: opencode.read_agent_session(value)),
    )
    for fits, read in known:
        if fits:
            return read()
    if "type" in value or "payload" in value or "sessionId" in value:
        return _of_lines(_Lines([_Line(1, value, b"")]), session_id)
    raise SessionFileError(f"seems to be {_object_with(value)}; taken are {TAKES}")


def _object_with(value: JsonObject) -> str:
    # A name is what somebody wrote: only what looks like a field's is told.
    names = [name for name in value if re.fullmatch(r"\w{1,40}", name, re.ASCII)][:_SHOWN_KEYS]
    return f"a JSON object with {', '.join(names)}" if names else "a JSON object"


def _of_list(values: list[Any], session_id: str | None) -> SessionFile:
    entries = objects(values)
    located = [LocatedItem(item, f"item {index}") for index, item in enumerate(values)]
    if not values or opencode.is_sync_data(values):
        return opencode.read_sync_data(located)
    if opencode.is_messages(values):
        return opencode.read_messages(values)
    if len(entries) == len(values):
        if is_gemini_log(entries):
            return read_gemini_log(entries, session_id)
        if is_gemini_checkpoint(entries):
            return read_gemini_checkpoint(entries, session_id)
        if any(reads(entries) for reads, _ in _TRANSCRIPTS):
            return _of_lines(_Lines([_Line(n, entry, b"") for n, entry in enumerate(values, 1)]), session_id)
        if not any("type" in entry for entry in entries):
            seems = _object_with(entries[0]).replace("a JSON object", "a list of JSON objects", 1)
            raise SessionFileError(f"seems to be {seems}; taken are {TAKES}")
    return opencode.read_sync_data(located)  # what is wrong with its items is told where they are checked


_TRANSCRIPTS = (
    (is_codex, read_codex),
    (is_gemini_lines, read_gemini_lines),
    (is_claude_code, read_claude_code),
)


class _Line(NamedTuple):
    number: int
    value: object
    text: bytes
    fault: str = ""


class _Lines(NamedTuple):
    """A file with a JSON value a line, of which the last may be cut off."""

    lines: list[_Line]

    @classmethod
    def of(cls, content: bytes) -> "_Lines | None":
        """Return the lines of a file; None if its first is no JSON object."""
        lines: list[_Line] = []
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                lines.append(_Line(number, jsontext.decode(line), line))
            except jsontext.JSONDecodeError as exc:
                if not lines:
                    return None
                lines.append(_Line(number, None, line, _fault(line, exc, number)))
            if len(lines) == 1 and not isinstance(lines[0].value, dict):
                return None
        return cls(lines)

    @property
    def entries(self) -> list[JsonObject]:
        """The lines that are objects."""
        return objects([line.value for line in self.lines])

    def kept(self) -> list[JsonObject]:
        """Return all lines as entries: one that is no object as an entry that holds it."""
        return [
            line.value
            if isinstance(line.value, dict)
            else {"type": f"line {line.number}", "text": line.text.decode(errors="replace") or line.value}
            for line in self.lines
        ]


def _of_lines(lines: _Lines, session_id: str | None) -> SessionFile:
    entries = lines.entries
    if not opencode.is_sync_data([*entries]):
        for fits, read in _TRANSCRIPTS:
            if fits(entries):
                # A transcript that is being written may end in the middle of a line.
                return read(lines.kept(), session_id)
        if len(entries) == 1 and not entries[0].get("type"):
            raise SessionFileError(f"seems to be {_object_with(entries[0])}; taken are {TAKES}")
        if not any("data" in entry for entry in entries):
            seems = _object_with(entries[0]).replace("a JSON object", "JSON lines, objects", 1)
            raise SessionFileError(f"seems to be {seems}; taken are {TAKES}")
    fault = next((line.fault for line in lines.lines if line.fault), None)
    if fault is not None:
        raise SessionFileError(fault)
    return opencode.read_sync_data([LocatedItem(line.value, f"line {line.number}") for line in lines.lines])


def _no_json(content: bytes, error: jsontext.JSONDecodeError) -> str:
    """Return what a file seems to be that is not JSON."""
    start = content.lstrip()[:64]
    if start[:1] in (b"{", b"["):
        return _fault(content, error)
    if start[:1] == b"<":
        return f"line 1: not JSON; seems to be HTML or XML; taken are {TAKES}"
    try:
        content.decode()
    except UnicodeDecodeError:
        return f"{_fault(content, error)}; seems to be binary; taken are {TAKES}"
    return f"{_fault(content, error)}; seems to be text; taken are {TAKES}"


def _fault(text: bytes, error: jsontext.JSONDecodeError, first_line: int = 1) -> str:
    """Return at which line JSON text goes wrong, and how."""
    try:
        # The standard library gives lines where msgspec gives bytes.
        json.loads(text.decode())
    except json.JSONDecodeError as exc:
        return f"line {first_line + exc.lineno - 1}: not JSON: {exc.msg}"
    except UnicodeDecodeError as exc:
        line = first_line + text.count(b"\n", 0, exc.start)
        return f"line {line}: not UTF-8"
    except RecursionError:
        return f"line {first_line}: nested too deeply"
    return f"line {first_line}: not JSON: {error}"
