"""Writes what ``opencode import FILE`` takes: the form of ``opencode export``.

opencode checks each message and part of it, and takes nothing of a file in which one lacks a field. What is
as opencode writes it is passed on byte for byte. What others or older versions wrote is completed.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from rpcshare import jsontext
from rpcshare.transcripts.json_fields import JsonObject, milliseconds, obj, objects, text
from rpcshare.transcripts.turns import Turn, Turns

__all__ = ["export_pieces"]

_SessionID = Annotated[str, msgspec.Meta(pattern="^ses")]
_MessageID = Annotated[str, msgspec.Meta(pattern="^msg")]
_PartID = Annotated[str, msgspec.Meta(pattern="^prt")]


class _Created(msgspec.Struct):
    created: Annotated[int, msgspec.Meta(ge=0)]


class _SessionTime(_Created):
    updated: Annotated[int, msgspec.Meta(ge=0)]


class _Session(msgspec.Struct):
    id: _SessionID
    slug: str
    title: str
    version: str
    time: _SessionTime


class _Model(msgspec.Struct, rename={"model": "modelID", "provider": "providerID"}):
    model: str
    provider: str


class _Path(msgspec.Struct):
    cwd: str
    root: str


class _Cache(msgspec.Struct):
    read: float
    write: float


class _Tokens(msgspec.Struct):
    input: float
    output: float
    reasoning: float
    cache: _Cache


class _User(msgspec.Struct, tag_field="role", tag="user", rename={"session": "sessionID"}):
    id: _MessageID
    session: _SessionID
    time: _Created
    agent: str
    model: _Model


class _Assistant(
    msgspec.Struct,
    tag_field="role",
    tag="assistant",
    rename={"session": "sessionID", "parent": "parentID", "model": "modelID", "provider": "providerID"},
):
    id: _MessageID
    session: _SessionID
    parent: _MessageID
    time: _Created
    model: str
    provider: str
    mode: str
    agent: str
    path: _Path
    cost: float
    tokens: _Tokens


class _Part(msgspec.Struct, tag_field="type", rename={"session": "sessionID", "message": "messageID"}):
    id: _PartID
    session: _SessionID
    message: _MessageID


class _Start(msgspec.Struct):
    start: Annotated[int, msgspec.Meta(ge=0)]


class _Times(_Start):
    end: Annotated[int, msgspec.Meta(ge=0)]


class _Text(_Part, tag="text"):
    text: str
    time: _Start | None = None


class _Reasoning(_Part, tag="reasoning"):
    text: str
    time: _Start


class _File(_Part, tag="file"):
    mime: str
    url: str


class _Completed(msgspec.Struct, tag_field="status", tag="completed"):
    input: dict[str, msgspec.Raw]
    output: str
    title: str
    metadata: dict[str, msgspec.Raw]
    time: _Times
    attachments: list[_File] | None = None


class _Failed(msgspec.Struct, tag_field="status", tag="error"):
    input: dict[str, msgspec.Raw]
    error: str
    time: _Times


class _Running(msgspec.Struct, tag_field="status", tag="running"):
    input: dict[str, msgspec.Raw]
    time: _Start


class _Pending(msgspec.Struct, tag_field="status", tag="pending"):
    input: dict[str, msgspec.Raw]
    raw: str


class _Tool(_Part, tag="tool", rename={"session": "sessionID", "message": "messageID", "call": "callID"}):
    call: str
    tool: str
    state: _Completed | _Failed | _Running | _Pending


class _StepStart(_Part, tag="step-start"):
    pass


class _StepFinish(_Part, tag="step-finish"):
    reason: str
    cost: float
    tokens: _Tokens


class _Snapshot(_Part, tag="snapshot"):
    snapshot: str


class _Patch(_Part, tag="patch"):
    hash: str
    files: list[str]


class _Agent(_Part, tag="agent"):
    name: str


class _Compaction(_Part, tag="compaction"):
    auto: bool


_is_session = msgspec.json.Decoder(_Session).decode
_is_message = msgspec.json.Decoder(_User | _Assistant).decode
_is_part = msgspec.json.Decoder(
    _Text | _Reasoning | _File | _Tool | _StepStart | _StepFinish | _Snapshot | _Patch | _Agent | _Compaction
).decode

_NO_TOKENS = {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}}


def export_pieces(turns: Turns) -> Iterator[bytes]:
    """Yield the document in pieces, without parts whose message is not known: opencode has no form for them.

    The pieces join to one JSON text.
    """
    session, session_id = _session(turns.session)
    yield b'{"info":'
    yield session
    yield b',"messages":['
    exporter = _Exporter(session_id)
    opening = b""
    for turn in turns.turns:
        if turn.message is None:
            continue
        yield opening + b'{"info":'
        yield exporter.message(turn)
        yield b',"parts":['
        for index, body in enumerate(turn.parts):
            if index:
                yield b","
            yield exporter.part(body)
        yield b"]}"
        opening = b","
    yield b"]}"


def _fits(check: Any, body: bytes) -> bool:  # noqa: ANN401 -- a decoder's method
    try:
        check(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _object(body: bytes) -> JsonObject:
    value = jsontext.decode(body)
    return value if isinstance(value, dict) else {}


def _named(prefix: str, told: str) -> str:
    """Return an id as opencode has them."""
    return told if told.startswith(prefix) else f"{prefix}_{told}"


def _session(body: bytes) -> tuple[bytes, str]:
    fields = _object(body)
    if _fits(_is_session, body):
        return body, text(fields, "id")
    times = obj(fields, "time")
    created = milliseconds(times.get("created"))
    session_id = _named("ses", text(fields, "id") or "unknown")
    completed = {
        "slug": session_id,
        "projectID": "",
        "directory": "",
        "title": "",
        "version": "1",
        **{name: value for name, value in fields.items() if value is not None},
        "id": session_id,
        "time": {**times, "created": created, "updated": milliseconds(times.get("updated")) or created},
    }
    for name in ("slug", "title", "version", "directory", "projectID"):
        if not isinstance(completed[name], str):
            completed[name] = ""
    return jsontext.encode(completed), session_id


class _Exporter:
    """Writes messages and parts, one after the other."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._created = 0  # of the message that is being written, in milliseconds since the epoch
        self._message_id = ""
        self._last_user = ""

    def message(self, turn: Turn) -> bytes:
        """Return a message as opencode takes it."""
        body = turn.message or b"{}"
        fields = _object(body)
        self._message_id = _named("msg", text(fields, "id"))
        self._created = milliseconds(obj(fields, "time").get("created")) or self._created
        is_user = text(fields, "role") != "assistant"
        if is_user:
            self._last_user = self._message_id
        if _fits(_is_message, body):
            return body
        made = {**fields, "id": self._message_id, "sessionID": self._session_id}
        made["role"] = "user" if is_user else "assistant"
        made["time"] = {**obj(fields, "time"), "created": self._created}
        made["agent"] = text(fields, "agent", "mode") or "build"
        if is_user:
            model = obj(fields, "model")
            made["model"] = {**model, **_strings(model, "providerID", "modelID")}
        else:
            parent = text(fields, "parentID")
            path = obj(fields, "path")
            made |= _strings(fields, "modelID", "providerID")
            made |= {
                "parentID": _named("msg", parent) if parent else self._last_user or self._message_id,
                "mode": text(fields, "mode", "agent") or "build",
                "path": {"cwd": text(path, "cwd"), "root": text(path, "root")},
                "cost": fields["cost"] if isinstance(fields.get("cost"), int | float) else 0,
                "tokens": _tokens(fields),
            }
        return jsontext.encode(made)

    def part(self, body: bytes) -> bytes:
        """Return a part of the message that was written last."""
        if _fits(_is_part, body):
            return body
        fields = _object(body)
        made = {**fields, **self._ids(fields)}
        match text(fields, "type"):
            case "text":
                made["text"] = text(fields, "text")
            case "reasoning":
                made |= {"text": text(fields, "text"), "time": self._times(obj(fields, "time"))}
            case "file":
                made |= {
                    "mime": text(fields, "mime") or "application/octet-stream",
                    "url": text(fields, "url"),
                }
            case "tool":
                made |= {
                    "callID": text(fields, "callID") or made["id"],
                    "tool": text(fields, "tool") or "tool",
                }
                made["state"] = self._state(obj(fields, "state"))
            case "step-finish":
                cost = fields["cost"] if isinstance(fields.get("cost"), int | float) else 0
                made |= {"reason": text(fields, "reason"), "cost": cost, "tokens": _tokens(fields)}
            case "patch":
                files = fields.get("files")
                kept = [each for each in files if isinstance(each, str)] if isinstance(files, list) else []
                made |= {"hash": text(fields, "hash"), "files": kept}
            case "compaction":
                made["auto"] = fields.get("auto") is True
            case _:
                pass
        return jsontext.encode(made)

    def _times(self, times: JsonObject, *, is_over: bool = False) -> JsonObject:
        start = milliseconds(times.get("start")) or self._created
        made = {**times, "start": start}
        if is_over or "end" in times:
            made["end"] = milliseconds(times.get("end")) or start
        return made

    def _state(self, state: JsonObject) -> JsonObject:
        status = text(state, "status")
        made = {**state, "input": obj(state, "input")}
        if status == "pending":
            return {**made, "raw": text(state, "raw")}
        if status == "running":
            return {**made, "time": self._times(obj(state, "time"))}
        made["time"] = self._times(obj(state, "time"), is_over=True)
        if status == "error":
            return {**made, "error": text(state, "error")}
        output = state.get("output")
        shown = output if isinstance(output, str) else "" if output is None else jsontext.indented(output)
        made |= {"status": "completed", "output": shown}
        made |= {"title": text(state, "title"), "metadata": obj(state, "metadata")}
        if "attachments" in made:
            made["attachments"] = [self._attachment(each) for each in objects(made["attachments"])]
        return made

    def _attachment(self, file: JsonObject) -> JsonObject:
        return {
            **file,
            **self._ids(file),
            "type": "file",
            "mime": text(file, "mime") or "application/octet-stream",
            "url": text(file, "url"),
        }

    def _ids(self, fields: JsonObject) -> JsonObject:
        return {
            "id": _named("prt", text(fields, "id")),
            "sessionID": self._session_id,
            "messageID": self._message_id,
        }


def _strings(fields: JsonObject, *names: str) -> JsonObject:
    return {name: text(fields, name) or "unknown" for name in names}


def _tokens(fields: JsonObject) -> JsonObject:
    told = obj(fields, "tokens")
    cache = {**_NO_TOKENS["cache"], **obj(told, "cache")}  # type: ignore[dict-item]  # it is an object
    return {**_NO_TOKENS, **told, "cache": cache}
