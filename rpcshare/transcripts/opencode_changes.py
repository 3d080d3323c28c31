"""What files became in a session of opencode: of its messages and its tools, whatever their version.

===================  ==================================================================================
until 1.15           ``session_diff`` items hold all files of the session
from 1.16            ``session_diff`` is ``[]``; a user's message holds ``summary.diffs``, those of its turn
``edit``             ``metadata.filediff`` (with ``before`` and ``after`` until 1.2, then with ``patch``) and
                     ``metadata.diff``; before them, only ``oldString`` and ``newString`` of the input
``write``            the same metadata in later versions; before them, ``content`` and ``metadata.exists``
``multiedit``        ``metadata.results``, each as of ``edit``
``apply_patch``      ``metadata.files``, each with ``patch`` (``diff`` in the first versions), and
                     ``metadata.diff``, which is all of them in one text
from 2.0             ``edit``, ``write`` and ``patch`` have ``metadata.files``, each a FileDiff with ``patch``
===================  ==================================================================================
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from rpcshare import jsontext
from rpcshare.transcripts.json_fields import JsonObject, obj, objects, text
from rpcshare.transcripts.unified_patch import read_patch

__all__ = [
    "FileCount",
    "changes_of_message",
    "changes_of_part",
    "changes_of_tool",
    "counts_of_part",
    "short_path",
]

_EDITING = frozenset({"edit", "write", "multiedit", "patch", "apply_patch"})
_SINGLE = frozenset({"edit", "write"})
_STATUSES = {"add": "added", "delete": "deleted", "move": "renamed", "update": "modified"}
# Most parts need not be decoded.
_CALL = re.compile(rb'"tool"\s*:\s*"(?:%b)"' % "|".join(sorted(_EDITING)).encode())


class FileCount(NamedTuple):
    """How many lines of a file a call changed."""

    file: str
    additions: int
    deletions: int


class _Patched(msgspec.Struct, gc=False, rename={"path": "filePath", "new_path": "movePath"}):
    additions: int
    deletions: int
    path: str
    patch: msgspec.Raw = msgspec.Raw()
    diff: msgspec.Raw = msgspec.Raw()
    new_path: str | None = None


class _FileDiff(msgspec.Struct, gc=False):
    file: str
    additions: int
    deletions: int
    patch: msgspec.Raw = msgspec.Raw()
    before: msgspec.Raw = msgspec.Raw()
    after: msgspec.Raw = msgspec.Raw()


class _Metadata(msgspec.Struct, gc=False):
    filediff: _FileDiff | None = None
    diff: msgspec.Raw = msgspec.Raw()
    files: list[_Patched] = []
    results: msgspec.Raw | None = None


class _State(msgspec.Struct, gc=False):
    status: str
    metadata: _Metadata


class _Edit(msgspec.Struct, gc=False):
    """The call of a tool that changes one file, as opencode writes it; its texts are not decoded."""

    type: str
    tool: str
    state: _State


_decode_edit = msgspec.json.Decoder(_Edit).decode


def counts_of_part(body: bytes) -> list[FileCount] | None:
    """Return what :func:`changes_of_part` tells of, without decoding texts; None where it must."""
    if _CALL.search(body) is None:
        return []
    try:
        part = _decode_edit(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    metadata, is_completed = part.state.metadata, part.state.status == "completed"
    if part.type == "tool" and metadata.results is None:
        if part.tool in _SINGLE and metadata.filediff is not None and not metadata.files:
            return _count(metadata.filediff, metadata.diff) if is_completed else []
        if part.tool == "apply_patch" and metadata.filediff is None:
            return _counts(metadata.files) if is_completed else []
    return None


def _count(diff: _FileDiff, patch: msgspec.Raw) -> list[FileCount] | None:
    is_told = any(map(_is_text, (diff.patch, diff.before, diff.after, patch)))
    if not is_told or not diff.file or diff.additions < 0 or diff.deletions < 0:
        return None
    return [FileCount(diff.file, diff.additions, diff.deletions)]


def _counts(files: list[_Patched]) -> list[FileCount] | None:
    counts = {each.new_path or each.path: each for each in files}
    is_told = any(_is_text(each.patch) or _is_text(each.diff) for each in files)
    if not is_told or len(counts) < len(files) or "" in counts:
        return None
    if any(each.additions < 0 or each.deletions < 0 for each in files):
        return None
    return [FileCount(name, each.additions, each.deletions) for name, each in counts.items()]


def _is_text(raw: msgspec.Raw) -> bool:
    written = bytes(memoryview(raw)[:3])
    return written[:1] == b'"' and written != b'""'


def changes_of_part(body: bytes) -> list[JsonObject]:
    """Return the FileDiffs that a part's JSON tells of: those of a call that succeeded."""
    if _CALL.search(body) is None:
        return []
    part = _decoded(body)
    state = obj(part, "state")
    if text(part, "type") != "tool" or text(state, "status") != "completed":
        return []
    return changes_of_tool(text(part, "tool"), obj(state, "input"), obj(state, "metadata"))


def changes_of_message(body: bytes | None) -> list[JsonObject] | None:
    """Return the FileDiffs of a user's message; None where it tells of none."""
    if body is None or b'"diffs"' not in body:
        return None
    diffs = objects(obj(_decoded(body), "summary").get("diffs"))
    return diffs or None


def changes_of_tool(name: str, given: JsonObject, metadata: JsonObject) -> list[JsonObject]:
    """Return the FileDiffs of a call, one for each file, in the call's order.

    Args:
        name: the tool's.
        given: its input.
        metadata: what it said of its result.
    """
    if name.lower().replace("-", "_") not in _EDITING:
        return []
    found: dict[str, JsonObject] = {}
    results = [metadata, *objects(metadata.get("results"))]
    for diff in (*map(_of_file, objects(metadata.get("files"))), *map(_of_result, results)):
        if diff and (file := text(diff, "file")):
            # Several edits of one file in one call: each has the file after those before it.
            key = file if file not in found or not _is_part_of(name) else f"{file}\0{len(found)}"
            found[key] = diff
    if any(text(diff, "patch", "before", "after") for diff in found.values()):
        return list(found.values())
    # A plugin may put its own tool in the place of opencode's, and name the files without their lines.
    whole = text(metadata, "diff", "patch")
    file = text(given, "filePath", "file_path", "path")
    told = _of_patch(whole, file) if whole else _of_input(name, given, metadata, file)
    return list(told) or list(found.values())


def short_path(path: str, directory: str) -> str:
    """Return a path from the session's directory on, with ``/``; of Windows, too."""
    slashed = path.replace("\\", "/") if _is_windows(path) or _is_windows(directory) else path
    base = directory.replace("\\", "/").rstrip("/") if _is_windows(directory) else directory.rstrip("/")
    if not base:
        return slashed
    start = slashed[: len(base) + 1]
    is_below = start == f"{base}/" or (_is_windows(directory) and start.lower() == f"{base}/".lower())
    return slashed[len(base) + 1 :] if is_below else "." if slashed == base else slashed


def _is_windows(path: str) -> bool:
    return (path[1:3] in (":\\", ":/") and path[:1].isalpha()) or path.startswith("\\\\")


def _is_part_of(name: str) -> bool:
    return name.lower() == "multiedit"


def _of_result(result: JsonObject) -> JsonObject:
    diff = obj(result, "filediff")
    if not diff:
        return {}
    file, patch = text(diff, "file", "path"), text(diff, "patch") or text(result, "diff")
    if patch and not text(diff, "before", "after"):
        return {**diff, "file": file, "patch": patch}
    return {**diff, "file": file}


def _of_file(file: JsonObject) -> JsonObject:
    """Return what ``apply_patch`` says of one file as a FileDiff."""
    path = text(file, "movePath") or text(file, "filePath", "relativePath", "file")
    status = _STATUSES.get(text(file, "type"), text(file, "status"))
    made: JsonObject = {"file": path, "patch": text(file, "patch", "diff"), "status": status}
    if status == "renamed":
        made["from"] = text(file, "filePath")
    for name in ("additions", "deletions", "before", "after"):
        if name in file:
            made[name] = file[name]
    return made


def _of_patch(whole: str, file: str) -> Iterator[JsonObject]:
    """Yield each file of a patch of several."""
    pieces = list(_pieces(whole))
    if len(pieces) <= 1 and file:
        yield {"file": file, "patch": whole}
        return
    for piece in pieces:
        for patch in read_patch(piece)[:1]:
            yield {"file": patch.path or file, "patch": piece}


def _pieces(whole: str) -> Iterator[str]:
    piece: list[str] = []
    is_headed = False
    lines = whole.split("\n")
    for number, line in enumerate(lines):
        is_head = line.startswith(("diff --git ", "Index: "))
        following = lines[number + 1] if number + 1 < len(lines) else ""
        is_pair = line.startswith("--- ") and following.startswith("+++ ")
        if piece and (is_head or (is_pair and not is_headed)):
            yield "\n".join(piece)
            piece = []
        is_headed = (is_headed or is_head) and not is_pair
        piece.append(line)
    if any(line.strip() for line in piece):
        yield "\n".join(piece)


def _of_input(name: str, given: JsonObject, metadata: JsonObject, file: str) -> Iterator[JsonObject]:
    """Yield what a call says that it wants, where its result says nothing."""
    if name.lower() == "write":
        content = text(given, "content", "contents")
        if content and file:
            status = "modified" if metadata.get("exists") is True else "added"
            yield {"file": file, "before": "", "after": content, "status": status}
        return
    for edit in (given, *objects(given.get("edits"))):
        old, new = text(edit, "oldString", "old_string"), text(edit, "newString", "new_string")
        if (old or new) and (text(edit, "filePath") or file):
            yield {"file": text(edit, "filePath") or file, "before": old, "after": new, "isExcerpt": True}
    yield from _of_begin_patch(text(given, "patchText"))


def _of_begin_patch(written: str) -> Iterator[JsonObject]:
    """Yield the files of ``*** Begin Patch``, the form that ``apply_patch`` takes."""
    lines: list[str] = []
    made: JsonObject = {}
    for line in [*written.split("\n"), "*** End Patch"]:
        action, _, path = line.removeprefix("*** ").partition(": ")
        kind = {"Add File": "added", "Update File": "modified", "Delete File": "deleted"}.get(action)
        if line.startswith("*** Move to: ") and made:
            made |= {"from": made["file"], "file": path.strip(), "status": "renamed"}
        elif line.startswith("*** ") and (kind or action.strip() == "End Patch"):
            if made:
                yield {**made, "patch": "\n".join(lines)}
            made = {"file": path.strip(), "status": kind} if kind else {}
            lines = []
        elif made and line[:1] in ("+", "-", " ", "@"):
            lines.append(line)


def _decoded(body: bytes) -> JsonObject:
    try:
        value = jsontext.decode(body)
    except jsontext.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
