"""Writes what ``opencode import FILE`` takes: the form of ``opencode export``.

opencode checks each message and part of it, and takes nothing of a file in which one lacks a field or has one
of another type. What is as opencode writes it is passed on byte for byte. What others or older versions wrote
is completed; a field that may be left out, and does not fit, is left out.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from rpcshare import jsontext
from rpcshare.transcripts.json_fields import (
    JsonObject,
    entry_text,
    milliseconds,
    number,
    obj,
    objects,
    text,
)
from rpcshare.transcripts.opencode_schema import (
    PARTS,
    STATES,
    AnswerTime,
    ApiFailure,
    Assistant,
    File,
    Model,
    User,
    decode_error,
    decode_message,
    decode_part,
    decode_session,
)
from rpcshare.transcripts.turns import Turn, Turns

__all__ = ["export_pieces"]

# Fields that parts of a kind must have, where they are nothing but strings.
_STRINGS = {
    "text": ("text",),
    "snapshot": ("snapshot",),
    "agent": ("name",),
    "subtask": ("prompt", "description", "agent"),
}
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


def _without_misfits(made: JsonObject, expected: type[msgspec.Struct]) -> JsonObject:
    """Return an object without those of its optional fields that are not as opencode expects them."""
    for field in msgspec.structs.fields(expected):
        name = field.encode_name
        if field.default is msgspec.UNSET and name in made:
            try:
                msgspec.json.decode(jsontext.encode(made[name]), type=field.type)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                del made[name]
    return made


def _error(error: JsonObject) -> JsonObject:
    """Return an error as opencode takes it: one that it does not know as an unknown one."""
    if _fits(decode_error, jsontext.encode(error)):
        return error
    return {"name": "UnknownError", "data": {**obj(error, "data"), "message": _said(error)}}


def _said(error: JsonObject) -> str:
    return text(obj(error, "data"), "message") or text(error, "message", "name") or "Something failed"


def _object(body: bytes) -> JsonObject:
    value = jsontext.decode(body)
    return value if isinstance(value, dict) else {}


def _named(prefix: str, told: str) -> str:
    """Return an id as opencode has them."""
    return told if told.startswith(prefix) else f"{prefix}_{told}"


def _session(body: bytes) -> tuple[bytes, str]:
    fields = _object(body)
    if _fits(decode_session, body):
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
        if _fits(decode_message, body):
            return body
        made = {**fields, "id": self._message_id, "sessionID": self._session_id}
        made["role"] = "user" if is_user else "assistant"
        made["time"] = {**obj(fields, "time"), "created": self._created}
        made["agent"] = text(fields, "agent", "mode") or "build"
        if is_user:
            model = obj(fields, "model")
            made["model"] = _without_misfits({**model, **_strings(model, "providerID", "modelID")}, Model)
        else:
            parent = text(fields, "parentID")
            path = obj(fields, "path")
            made |= _strings(fields, "modelID", "providerID")
            made |= {
                "parentID": _named("msg", parent) if parent else self._last_user or self._message_id,
                "mode": text(fields, "mode", "agent") or "build",
                "path": {"cwd": text(path, "cwd"), "root": text(path, "root")},
                "cost": _cost(fields),
                "tokens": _tokens(fields),
            }
            made["time"] = _without_misfits(made["time"], AnswerTime)
            if isinstance(fields.get("error"), dict):
                made["error"] = _error(fields["error"])
        return jsontext.encode(_without_misfits(made, User if is_user else Assistant))

    def part(self, body: bytes) -> bytes:
        """Return a part of the message that was written last."""
        if _fits(decode_part, body):
            return body
        fields = _object(body)
        kind = text(fields, "type")
        expected = PARTS.get(kind)
        if expected is None:
            # What opencode does not know, it takes as a text alone.
            words = entry_text(kind or "part", fields)
            made = {**self._ids(fields), "type": "text", "text": words, "synthetic": True}
            return jsontext.encode(made)
        made = {**fields, **self._ids(fields), **self._required(kind, fields)}
        return jsontext.encode(_without_misfits(made, expected))

    def _required(self, kind: str, fields: JsonObject) -> JsonObject:
        """Return what a part of a kind must have, beside its ids."""
        made: JsonObject
        match kind:
            case "reasoning":
                made = {"text": text(fields, "text"), "time": self._times(obj(fields, "time"))}
            case "file":
                mime = text(fields, "mime") or "application/octet-stream"
                made = {"mime": mime, "url": text(fields, "url")}
            case "tool":
                name = text(fields, "tool") or "tool"
                call_id = text(fields, "callID") or text(fields, "id")
                made = {"callID": call_id, "tool": name, "state": self._state(obj(fields, "state"))}
            case "step-finish":
                made = {"reason": text(fields, "reason"), "cost": _cost(fields), "tokens": _tokens(fields)}
            case "patch":
                files = fields.get("files")
                kept = [each for each in files if isinstance(each, str)] if isinstance(files, list) else []
                made = {"hash": text(fields, "hash"), "files": kept}
            case "compaction":
                made = {"auto": fields.get("auto") is True}
            case "retry":
                made = self._failed_attempt(fields)
            case _:
                made = {name: text(fields, name) for name in _STRINGS.get(kind, ())}
        return made

    def _failed_attempt(self, fields: JsonObject) -> JsonObject:
        error = obj(fields, "error")
        failure = {"isRetryable": True, **obj(error, "data"), "message": _said(error)}
        if not isinstance(failure["isRetryable"], bool):
            failure["isRetryable"] = True
        return {
            "attempt": number(fields, "attempt"),
            "error": {"name": "APIError", "data": _without_misfits(failure, ApiFailure)},
            "time": {"created": milliseconds(obj(fields, "time").get("created")) or self._created},
        }

    def _times(self, times: JsonObject, *, is_over: bool = False) -> JsonObject:
        start = milliseconds(times.get("start")) or self._created
        made = {**times, "start": start}
        if is_over or "end" in times:
            made["end"] = milliseconds(times.get("end")) or start
        return made

    def _shaped(self, state: JsonObject) -> JsonObject:
        return _without_misfits(state, STATES[state["status"]])

    def _state(self, state: JsonObject) -> JsonObject:
        status = text(state, "status")
        made = {**state, "input": obj(state, "input")}
        if status == "pending":
            return self._shaped({**made, "raw": text(state, "raw")})
        if status == "running":
            return self._shaped({**made, "time": self._times(obj(state, "time"))})
        made["time"] = self._times(obj(state, "time"), is_over=True)
        if status == "error":
            return self._shaped({**made, "error": text(state, "error")})
        output = state.get("output")
        shown = output if isinstance(output, str) else "" if output is None else jsontext.indented(output)
        made |= {"status": "completed", "output": shown}
        made |= {"title": text(state, "title"), "metadata": obj(state, "metadata")}
        if "attachments" in made:
            made["attachments"] = [self._attachment(each) for each in objects(made["attachments"])]
        return self._shaped(made)

    def _attachment(self, file: JsonObject) -> JsonObject:
        made = {
            **file,
            **self._ids(file),
            "type": "file",
            "mime": text(file, "mime") or "application/octet-stream",
            "url": text(file, "url"),
        }
        return _without_misfits(made, File)

    def _ids(self, fields: JsonObject) -> JsonObject:
        return {
            "id": _named("prt", text(fields, "id")),
            "sessionID": self._session_id,
            "messageID": self._message_id,
        }


def _strings(fields: JsonObject, *names: str) -> JsonObject:
    return {name: text(fields, name) or "unknown" for name in names}


def _cost(fields: JsonObject) -> float:
    cost = fields.get("cost")
    return cost if isinstance(cost, int | float) and not isinstance(cost, bool) else 0


def _tokens(fields: JsonObject) -> JsonObject:
    told = obj(fields, "tokens")
    cache = {**_NO_TOKENS["cache"], **_numbers(obj(told, "cache"))}  # type: ignore[dict-item]  # it is an object
    return {**_NO_TOKENS, **_numbers(told), "cache": cache}


def _numbers(fields: JsonObject) -> JsonObject:
    return {
        name: value
        for name, value in fields.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
