"""A session as a Markdown document, for people to read: safe text, whatever is in the session."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rpcshare import jsontext
from rpcshare.transcripts.json_fields import JsonObject, fenced, milliseconds, obj, objects, text
from rpcshare.transcripts.markdown_prose import clean, code_span, line, prose, quoted
from rpcshare.transcripts.turns import Turn, Turns

__all__ = ["markdown_pieces"]

# What a tool is called with that is read as a text of its own, and in what language.
_ARGUMENTS = {"bash": ("command", "sh"), "apply_patch": ("patchText", "diff")}


# Characters of one text: of more the rest is left out, and the document says so. It is made in one go.
_MAX_TEXT = 1_000_000


def markdown_pieces(turns: Turns) -> Iterator[bytes]:
    """Yield the document in pieces: its head, each message, and what has changed."""
    for block in _blocks(turns):
        yield (block + "\n\n").encode(errors="replace")


def _blocks(turns: Turns) -> Iterator[str]:
    session = _object(turns.session)
    yield f"# {line(text(session, 'title')) or 'Untitled session'}"
    if facts := "\n".join(_facts(session)):
        yield facts
    for turn in turns.turns:
        yield from _turn(turn)
    changes = [block for body in turns.files if (block := _change(_object(body)))]
    if changes:
        yield "## Changes"
        yield from changes


def _object(body: bytes) -> JsonObject:
    value = jsontext.decode(body)
    return value if isinstance(value, dict) else {}


def _facts(session: JsonObject) -> Iterator[str]:
    times = obj(session, "time")
    for name, value in (
        ("Session", text(session, "id")),
        ("Directory", text(session, "directory")),
        ("Started", _time(times.get("created"))),
        ("Last change", _time(times.get("updated"))),
    ):
        if value:
            yield f"- {name}: {code_span(value)}"


def _time(value: object) -> str:
    time = milliseconds(value)
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC" if time else ""


def _turn(turn: Turn) -> Iterator[str]:
    message = {} if turn.message is None else _object(turn.message)
    role = text(message, "role")
    model = text(message, "modelID")
    name = {"user": "User", "assistant": "Assistant"}.get(role, line(role) or "Parts without a message")
    yield f"## {name}" + (f" ({line(model)})" if model else "")
    for body in turn.parts:
        yield from _part(_object(body))
    if error := obj(message, "error"):
        told = text(obj(error, "data"), "message") or text(error, "name")
        yield f"**Failed:** {line(told)}"


def _part(part: JsonObject) -> Iterator[str]:
    match text(part, "type"):
        case "text":
            written = text(part, "text")
            if part.get("synthetic") is True or part.get("ignored") is True:
                yield from _fenced("Context", written, "text")
            elif written.strip():
                yield prose(written[:_MAX_TEXT])
                yield from _left_out(written)
        case "reasoning":
            thought = text(part, "text")
            if thought.strip():
                yield "*Thought*\n\n" + quoted(prose(thought[:_MAX_TEXT]))
                yield from _left_out(thought)
        case "tool":
            yield from _tool(part)
        case "file":
            yield _file(part)
        case "patch":
            files = [code_span(each) for each in _list(part.get("files")) if isinstance(each, str)]
            yield f"*Changed:* {', '.join(files)}"
        case "step-start" | "step-finish" | "snapshot":
            pass  # figures, which are in the JSON forms
        case kind:
            yield from _fenced(kind or "part", jsontext.indented(part), "json")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _fenced(label: str, content: str, language: str) -> Iterator[str]:
    shown = clean(content[:_MAX_TEXT])
    if shown.strip():
        yield f"*{line(label)}*\n\n{fenced(shown, language)}"
        yield from _left_out(content)


def _left_out(whole: str) -> Iterator[str]:
    if len(whole) > _MAX_TEXT:
        yield f"*{len(whole) - _MAX_TEXT:,} more characters are in the session's JSON*"


def _tool(part: JsonObject) -> Iterator[str]:
    name, state = text(part, "tool"), obj(part, "state")
    title, status = text(state, "title"), text(state, "status")
    head = f"**{line(name, 80) or 'tool'}**"
    head += f" {line(title)}" if title else ""
    head += f" ({line(status, 40)})" if status not in ("", "completed") else ""
    yield head
    arguments = dict(obj(state, "input"))
    argument, language = _ARGUMENTS.get(name, ("", ""))
    if isinstance(arguments.get(argument), str):
        yield from _code(str(arguments.pop(argument)), language)
    if arguments:
        yield from _code(jsontext.indented(arguments), "json")
    output = state.get("output")
    shown = output if isinstance(output, str) else "" if output is None else jsontext.indented(output)
    yield from _fenced("Output", shown, "text")
    error = state.get("error")
    shown = error if isinstance(error, str) else "" if error is None else jsontext.indented(error)
    yield from _fenced("Error", shown, "text")
    for each in objects(state.get("attachments")):
        yield _file(each)


def _code(whole: str, language: str) -> Iterator[str]:
    yield fenced(clean(whole[:_MAX_TEXT]), language)
    yield from _left_out(whole)


def _file(part: JsonObject) -> str:
    name = text(part, "filename") or "file"
    url = text(part, "url")
    mime = text(part, "mime")
    # What is in a data: URL can be downloaded from the share, and is no reading.
    where = "" if not url or url[:5].lower() == "data:" else f", {code_span(url)}"
    return f"*File:* {code_span(name)}" + (f" ({line(mime, 100)}{where})" if mime or where else "")


def _change(diff: JsonObject) -> str:
    name = text(diff, "file")
    if not name:
        return ""
    counts = " ".join(
        f"{sign}{value}"
        for sign, value in (("+", diff.get("additions")), ("-", diff.get("deletions")))
        if isinstance(value, int)
    )
    written = text(diff, "patch", "diff")
    patch = clean(written[:_MAX_TEXT].rstrip())
    more = "".join(f"\n\n{each}" for each in _left_out(written))
    shown = f"\n\n{fenced(patch, 'diff')}{more}" if patch else ""
    return f"### {code_span(name)} {counts}".rstrip() + shown
