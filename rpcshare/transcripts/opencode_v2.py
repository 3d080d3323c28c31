"""Exports of opencode 2: what ``opencode session export`` prints.

A message has a ``type``, and holds what the parts of version 1 did: ``text``, ``files`` and ``agents`` of a
prompt, ``content`` of an answer. It is read as a message of version 1 under its own id, with parts. Fields
that version 1 does not have are kept beside the others.
"""

from collections.abc import Iterator
from typing import Any

from rpcshare.transcripts.json_fields import JsonObject, entry_text, milliseconds, number, obj, objects, text
from rpcshare.transcripts.session_file import LocatedItem, SessionFile

__all__ = ["is_v2_export", "read_v2_export"]

_MESSAGE_FIELDS = frozenset({"id", "type", "time", "agent", "model"})
_PROMPT_FIELDS = frozenset({"text", "files", "agents", "skills"})
_ABORTED = ("abort", "interrupt", "cancel")


def is_v2_export(document: JsonObject) -> bool:
    """Whether a JSON object is what opencode 2 exports: its messages have a type, and no ``info``."""
    messages = document.get("messages")
    return (
        isinstance(document.get("info"), dict)
        and isinstance(messages, list)
        and any(text(each, "type") and "info" not in each for each in objects(messages))
    )


def read_v2_export(document: JsonObject) -> SessionFile:
    """Return the SyncData of a session that opencode 2 exported."""
    info = document["info"]
    location = obj(info, "location")
    directory = text(info, "directory") or text(location, "directory")
    session_id = text(info, "id") or "opencode"
    session = {
        "slug": session_id,
        "version": "2",
        "title": "",
        **info,
        "id": session_id,
        "directory": directory,
    }
    reader = _Reader(session_id, directory, obj(info, "model"), text(info, "agent"))
    for index, message in enumerate(document["messages"]):
        reader.read(message, f"messages[{index}]")
    items = [LocatedItem({"type": "session", "data": session}, "info"), *reader.items()]
    return SessionFile("an export of opencode 2", items, text(info, "id") or None)


class _Message:
    """A message of version 1, to which parts are added."""

    def __init__(self, info: JsonObject, place: str) -> None:
        self.info = info
        self.place = place
        self.parts: list[JsonObject] = []

    def add(self, kind: str, **fields: Any) -> JsonObject:  # noqa: ANN401 -- any part's fields
        """Add a part."""
        stem = self.info["id"].removeprefix("msg_")
        part = {
            **fields,
            "id": f"prt_{stem}{len(self.parts) + 1:05d}",
            "sessionID": self.info["sessionID"],
            "messageID": self.info["id"],
            "type": kind,
        }
        self.parts.append(part)
        return part

    def keep(self, kind: str, entry: object) -> None:
        """Add what version 1 has no part for, as its kind and its JSON."""
        self.add("text", text=entry_text(kind, entry), synthetic=True, metadata={"entry": kind})


class _Reader:
    def __init__(self, session_id: str, directory: str, model: JsonObject, agent: str) -> None:
        self._session_id = session_id
        self._directory = directory
        self._model = model
        self._agent = agent or "build"
        self._messages: list[_Message] = []
        self._early: list[tuple[str, object]] = []  # what comes before the first message
        self._last_user = ""

    def items(self) -> Iterator[LocatedItem]:
        """Yield what has been read."""
        if self._early:
            self._begin("user", {}, "messages[0]", frozenset())
        for message in self._messages:
            yield LocatedItem({"type": "message", "data": message.info}, message.place)
            for part in message.parts:
                yield LocatedItem({"type": "part", "data": part}, message.place)

    def read(self, message: object, place: str) -> None:
        """Read the next message."""
        fields = message if isinstance(message, dict) else {}
        self._model = obj(fields, "model") or self._model
        self._agent = text(fields, "agent") or self._agent
        kind = text(fields, "type")
        match kind:
            case "user":
                self._read_prompt(fields, place)
            case "assistant":
                self._read_answer(fields, place)
            case "shell":
                self._read_shell(fields, place)
            case "synthetic" | "system" | "skill":
                added = self._begin("user", fields, place, _PROMPT_FIELDS)
                name = " ".join(filter(None, (kind, text(fields, "name", "description"))))
                added.add("text", text=text(fields, "text"), synthetic=True, metadata={"entry": name})
            case "compaction":
                self._read_compaction(fields, place)
            case "idle" if self._messages and text(fields, "outcome") == "succeeded":
                self._messages[-1].info["idle"] = fields
            case _:
                self._keep(kind or "message", message)

    def _begin(self, role: str, fields: JsonObject, place: str, read: frozenset[str]) -> _Message:
        """Begin a message, with the fields that are read nowhere else."""
        others = {
            name: value for name, value in fields.items() if name not in read and name not in _MESSAGE_FIELDS
        }
        info: JsonObject = {
            **others,
            "id": text(fields, "id") or f"msg_{len(self._messages) + 1:08d}",
            "sessionID": self._session_id,
            "role": role,
            "time": {**obj(fields, "time"), "created": self._created(fields)},
            "agent": self._agent,
        }
        model = {"providerID": text(self._model, "providerID"), "modelID": text(self._model, "id", "modelID")}
        if role == "user":
            info["model"] = {**{name: self._model[name] for name in self._model if name != "id"}, **model}
            self._last_user = info["id"]
        else:
            info |= {
                **model,
                "parentID": self._last_user or info["id"],
                "mode": self._agent,
                "path": {"cwd": self._directory, "root": self._directory},
            }
        begun = _Message(info, place)
        for kind, entry in self._early:
            begun.keep(kind, entry)
        self._early = []
        self._messages.append(begun)
        return begun

    def _created(self, fields: JsonObject) -> int:
        before = self._messages[-1].info["time"]["created"] if self._messages else 0
        return milliseconds(obj(fields, "time").get("created")) or before

    def _keep(self, kind: str, message: object) -> None:
        if self._messages:
            self._messages[-1].keep(kind, message)
        else:
            self._early.append((kind, message))

    def _read_prompt(self, fields: JsonObject, place: str) -> None:
        user = self._begin("user", fields, place, _PROMPT_FIELDS)
        if words := text(fields, "text"):
            user.add("text", text=words)
        for file in _list(fields.get("files")):
            if isinstance(file, dict) and text(file, "uri", "url"):
                user.add("file", **_file(file))
            else:
                user.keep("file", file)
        for agent in _list(fields.get("agents")):
            if name := agent if isinstance(agent, str) else text(_object(agent), "name"):
                user.add("agent", **_object(agent) | {"name": name})
            else:
                user.keep("agent", agent)
        for skill in _list(fields.get("skills")):
            user.keep("skill", skill)

    def _read_answer(self, fields: JsonObject, place: str) -> None:
        answer = self._begin("assistant", fields, place, frozenset({"content", "error", "retry"}))
        tokens = obj(fields, "tokens")
        answer.info |= {"cost": fields["cost"] if isinstance(fields.get("cost"), int | float) else 0}
        answer.info["tokens"] = {
            **{name: number(tokens, name) for name in ("input", "output", "reasoning")},
            "cache": {name: number(obj(tokens, "cache"), name) for name in ("read", "write")},
        }
        if error := obj(fields, "error"):
            answer.info["error"] = _error(error)
        if retry := obj(fields, "retry"):
            times = {"created": milliseconds(retry.get("at")) or answer.info["time"]["created"]}
            more = {"attempt": number(retry, "attempt"), "error": _error(obj(retry, "error")), "time": times}
            answer.add("retry", **more)
        for block in _list(fields.get("content")):
            self._add_content(answer, block)
        snapshot = obj(fields, "snapshot")
        if files := [each for each in _list(snapshot.get("files")) if isinstance(each, str)]:
            answer.add("patch", hash=text(snapshot, "end", "start"), files=files)

    def _add_content(self, answer: _Message, block: object) -> None:
        fields = _object(block)
        match block:
            case {"type": "text", "text": str(words)}:
                answer.add("text", **fields | {"text": words})
            case {"type": "reasoning", "text": str(words)}:
                start, end = _times(obj(fields, "time"), answer.info["time"]["created"])
                time = {"start": start, **({"end": end} if end else {})}
                answer.add("reasoning", **fields | {"text": words, "time": time})
            case {"type": "tool", "name": str(name)}:
                others = {key: fields[key] for key in fields if key not in ("id", "name", "state", "time")}
                added = answer.add("tool", **others, tool=name, callID=text(fields, "id"))
                added["state"] = _state(fields, added, answer.info["time"]["created"])
            case _:
                answer.keep(text(fields, "type") or "content", block)

    def _read_shell(self, fields: JsonObject, place: str) -> None:
        """Read a command that the user gave to a shell."""
        added = self._begin("user", fields, place, frozenset({"command", "output", "status", "exit"}))
        told = fields.get("output")
        output = text(told, "output") if isinstance(told, dict) else told if isinstance(told, str) else ""
        start, end = _times(obj(fields, "time"), added.info["time"]["created"])
        status = "running" if text(fields, "status") == "running" else "completed"
        metadata = {name: fields[name] for name in ("exit", "status") if name in fields}
        state: JsonObject = {"status": status, "input": {"command": text(fields, "command")}}
        state |= {"metadata": metadata, "time": {"start": start}}
        if status == "completed":
            state |= {"output": output, "title": "", "time": {"start": start, "end": end or start}}
        call_id = text(fields, "shellID", "callID") or added.info["id"]
        added.add("tool", tool="shell", callID=call_id, state=state)

    def _read_compaction(self, fields: JsonObject, place: str) -> None:
        read = frozenset({"reason", "summary", "recent", "error", "cost", "tokens"})
        added = self._begin("assistant", fields, place, read)
        added.info |= {"summary": True, "cost": fields.get("cost", 0), "tokens": obj(fields, "tokens")}
        if text(fields, "status") != "running":
            added.info["time"].setdefault("completed", added.info["time"]["created"])
        added.add("compaction", auto=text(fields, "reason") != "manual")
        if summary := text(fields, "summary"):
            added.add("text", text=summary)
        if recent := text(fields, "recent"):
            added.add("text", text=recent, synthetic=True, metadata={"entry": "what follows the summary"})
        if error := obj(fields, "error"):
            added.info["error"] = _error(error)


def _state(tool: JsonObject, part: JsonObject, created: int) -> JsonObject:
    """Return the state of a call as version 1 has it."""
    told = obj(tool, "state")
    status = text(told, "status")
    given = told.get("input")
    start, end = _times(obj(tool, "time") or obj(told, "time"), created)
    if status in ("streaming", "pending"):
        raw = given if isinstance(given, str) else ""
        return {"status": "pending", "input": _object(given), "raw": raw}
    state: JsonObject = {
        "status": status or "running",
        "input": _object(given),
        "metadata": obj(told, "metadata"),
    }
    if not isinstance(given, dict | None):
        state["metadata"] = {**state["metadata"], "input": given}
    if status not in ("completed", "error"):
        return {**state, "time": {"start": start}}
    state["time"] = {"start": start, "end": max(start, end)}
    content = objects(told.get("content"))
    output = "\n\n".join(text(each, "text") for each in content if text(each, "text"))
    files = [each for each in content if text(each, "type") == "file"]
    if others := [each for each in content if text(each, "type") not in ("text", "file")]:
        state["metadata"] = {**state["metadata"], "content": others}
    if status == "error":
        error = told.get("error")
        state["error"] = error if isinstance(error, str) else text(_object(error), "message") or "failed"
        if output:
            state["metadata"] = {**state["metadata"], "output": output}
        return state
    state |= {"output": output, "title": ""}
    if files:
        shared = {name: part[name] for name in ("sessionID", "messageID")}
        state["attachments"] = [
            {**_file(each), "id": f"{part['id']}f{index}", **shared, "type": "file"}
            for index, each in enumerate(files)
        ]
    return state


def _file(file: JsonObject) -> JsonObject:
    others = {name: file[name] for name in file if name not in ("uri", "url", "name", "filename", "type")}
    name = text(file, "name", "filename")
    mime = text(file, "mime") or "application/octet-stream"
    return {**others, "mime": mime, "url": text(file, "uri", "url"), **({"filename": name} if name else {})}


def _error(error: JsonObject) -> JsonObject:
    name = text(error, "name", "type") or "UnknownError"
    if any(word in name.lower() for word in _ABORTED):
        name = "MessageAbortedError"
    data = {key: value for key, value in error.items() if key not in ("name", "data")} | obj(error, "data")
    if status := number(error, "status"):
        data["statusCode"] = status
        name = "APIError" if name != "MessageAbortedError" else name
    data.setdefault("isRetryable", False)
    return {"name": name, "data": {**data, "message": text(error, "message") or text(data, "message")}}


def _times(time: JsonObject, otherwise: int) -> tuple[int, int]:
    start = milliseconds(time.get("ran")) or milliseconds(time.get("created")) or otherwise
    return start, milliseconds(time.get("completed"))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}
