"""Transcripts of Gemini CLI, in ``~/.gemini/tmp/*/``.

``chats/session-*.json`` is one object with all messages; ``chats/session-*.jsonl`` of later versions has a
message a line, the same message again when it has grown, and ``$set`` and ``$rewindTo`` between them;
``logs.json`` has only what the user typed; a ``checkpoint-*.json`` what the model was sent.
"""

from collections.abc import Iterator
from typing import Any

from rpcshare import jsontext
from rpcshare.transcripts.conversation import Conversation, Message, Tool
from rpcshare.transcripts.json_fields import JsonObject, number, obj, objects, text
from rpcshare.transcripts.session_file import LocatedItem, SessionFile
from rpcshare.transcripts.tools import opencode_tool

__all__ = ["is_gemini_chat", "is_gemini_checkpoint", "is_gemini_lines", "is_gemini_log", "read_gemini_chat",
           "read_gemini_checkpoint", "read_gemini_lines", "read_gemini_log"]  # fmt: skip

_KIND = "a Gemini CLI transcript"
_READ = ("id", "timestamp", "type", "content", "displayContent", "thoughts", "toolCalls", "tokens", "model")


def is_gemini_chat(document: JsonObject) -> bool:
    """Whether a JSON object is a whole chat."""
    return isinstance(document.get("messages"), list) and "sessionId" in document and (
        "projectHash" in document or "startTime" in document
    )  # fmt: skip


def is_gemini_lines(entries: list[JsonObject]) -> bool:
    """Whether entries are those of a chat with a message a line."""
    return any(
        ("sessionId" in entry and "projectHash" in entry) or text(entry, "type") == "gemini"
        for entry in entries
    )


def is_gemini_log(entries: list[JsonObject]) -> bool:
    """Whether a list is what the user typed."""
    return bool(entries) and all(
        "sessionId" in entry and "messageId" in entry and isinstance(entry.get("message"), str)
        for entry in entries
    )


def is_gemini_checkpoint(contents: list[JsonObject]) -> bool:
    """Whether a list is what a model was sent."""
    return bool(contents) and all(
        text(each, "role") in ("user", "model") and isinstance(each.get("parts"), list) for each in contents
    )


def read_gemini_chat(document: JsonObject, session_id: str | None = None) -> SessionFile:
    """Return the session that a whole chat tells of, under its own id or ``session_id``."""
    head = {name: value for name, value in document.items() if name != "messages"}
    messages = document["messages"]
    return read_gemini_lines([head, *messages], session_id)


def read_gemini_lines(entries: list[Any], session_id: str | None = None) -> SessionFile:
    """Return the session that entries tell of, under its own id or ``session_id``."""
    own = session_id or next((found for each in objects(entries) if (found := text(each, "sessionId"))), None)
    reader = _Reader(own or "gemini-cli")
    entries = [each for entry in entries for each in _with_its_messages(entry)]
    newest = {text(each, "id"): each for each in objects(entries) if text(each, "id")}
    for entry in entries:
        if isinstance(entry, dict) and (message_id := text(entry, "id")):
            # In the place where it was first, as it was last.
            if (last := newest.pop(message_id, None)) is not None:
                reader.read_message(last)
        elif isinstance(entry, dict) and "type" in entry and "sessionId" not in entry:
            reader.read_message(entry)  # versions that wrote no ids
        else:
            reader.read_other(entry)
    return SessionFile(_KIND, reader.items(), own)


def _with_its_messages(entry: object) -> Iterator[object]:
    """Yield an entry, and behind it the messages that it sets: all that the chat had at that moment."""
    setting = obj(_fields(entry), "$set")
    messages = setting.get("messages")
    if not isinstance(messages, list):
        yield entry
        return
    others = {name: value for name, value in setting.items() if name != "messages"}
    if others or len(_fields(entry)) > 1:
        yield {**_fields(entry), "$set": others}
    yield from messages


def read_gemini_log(entries: list[JsonObject], session_id: str | None = None) -> SessionFile:
    """Return what the user typed in one session: the one asked for, or else the last."""
    sessions = [text(entry, "sessionId") for entry in entries]
    own = session_id if session_id in sessions else sessions[-1]
    reader = _Reader(session_id or own or "gemini-cli")
    is_one = session_id in sessions
    for entry in entries:
        if not is_one or text(entry, "sessionId") == own:
            reader.read_logged(entry)
    return SessionFile("a log of Gemini CLI", reader.items(), session_id or own)


def read_gemini_checkpoint(contents: list[JsonObject], session_id: str | None = None) -> SessionFile:
    """Return the session that a checkpoint holds. It has no id of its own."""
    reader = _Reader(session_id or "gemini-cli")
    for content in contents:
        reader.read_content(content)
    return SessionFile("a checkpoint of Gemini CLI", reader.items(), session_id)


class _Reader:
    def __init__(self, session_id: str) -> None:
        self._made = Conversation("gemini-cli", "google", session_id)
        self._calls: dict[str, Tool] = {}

    def items(self) -> list[LocatedItem]:
        """Return what has been read."""
        return self._made.items()

    def read_logged(self, entry: JsonObject) -> None:
        """Read what the user typed."""
        self._made.at(entry.get("timestamp"))
        user = self._made.user()
        user.text(text(entry, "message"))
        self._made.prompt(text(entry, "message"))

    def read_content(self, content: JsonObject) -> None:
        """Read a message as the model's API has it."""
        is_user = text(content, "role") == "user"
        parts = content["parts"]
        if is_user and all(self._finish_call(part) for part in parts) and parts:
            return
        message = self._made.user() if is_user else self._made.assistant()
        self._add_content(message, parts, is_prompt=is_user)

    def read_other(self, entry: object) -> None:
        """Read what is no message: what is known of the session, or what happened to it."""
        made = self._made
        fields = entry if isinstance(entry, dict) else {}
        for told in (fields, obj(fields, "$set")):
            made.at(told.get("startTime"))
            made.title = text(told, "summary") or made.title
            directories = told.get("directories")
            if isinstance(directories, list) and directories and isinstance(directories[0], str):
                made.directory = made.directory or directories[0]
        if "projectHash" in fields:
            made.metadata["projectHash"] = fields["projectHash"]
        kind = next((name for name in ("$set", "$rewindTo") if name in fields), "session")
        made.current().keep(kind, entry)

    def read_message(self, message: JsonObject) -> None:
        """Read a message."""
        made = self._made
        made.at(message.get("timestamp"))
        made.model = text(message, "model") or made.model
        kind = text(message, "type")
        shown = message.get("displayContent")
        content = message.get("content")
        if kind == "user":
            added = made.user()
            self._add_content(added, shown or content, is_prompt=True)
            if shown and shown != content:
                added.keep("content", content)
        elif kind in ("gemini", "model"):
            added = made.assistant()
            self._read_answer(added, message)
        else:
            added = made.current()
            added.context(_plain(content), kind or "message")
            if not isinstance(content, str):
                added.keep(kind or "message", message)
        others = {name: value for name, value in message.items() if name not in _READ}
        if others:
            added.keep(kind or "message", others)

    def _read_answer(self, answer: Message, message: JsonObject) -> None:
        now = self._made.now
        thoughts = message.get("thoughts")
        for thought in thoughts if isinstance(thoughts, list) else ():
            match thought:
                case {"subject": str(subject)}:
                    described = text(_fields(thought), "description")
                    answer.reasoning(f"**{subject}**\n\n{described}".strip(), now)
                case {"description": str(described)}:
                    answer.reasoning(described, now)
                case _:
                    answer.keep("thought", thought)
        self._add_content(answer, message.get("content"), is_prompt=False)
        calls = message.get("toolCalls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._add_call(answer, call)
            else:
                answer.keep("toolCall", call)
        if tokens := obj(message, "tokens"):
            cached = number(tokens, "cached")
            answer.info["tokens"] = {
                "input": max(0, number(tokens, "input") - cached),
                "output": number(tokens, "output"),
                "reasoning": number(tokens, "thoughts"),
                "cache": {"read": cached, "write": 0},
            }

    def _add_call(self, answer: Message, call: JsonObject) -> None:
        made = self._made
        name, arguments = opencode_tool(text(call, "name") or "tool", obj(call, "args"))
        now = made.at(call.get("timestamp"))
        tool = answer.tool(name, arguments, text(call, "id"), now)
        status = text(call, "status")
        if status not in ("success", "error", "cancelled"):
            tool.note({"status": status})
            return
        output, files, others = _result(call.get("result"))
        shown = call.get("resultDisplay")
        metadata: JsonObject = {"resultDisplay": shown} if shown is not None and shown != output else {}
        if isinstance(shown, dict) and (patch := text(shown, "fileDiff")):
            metadata["diff"] = patch
        if others:
            metadata["result"] = others
        if isinstance(shown, str):
            output = output or shown
        tool.finish(
            output or ("cancelled" if status == "cancelled" else ""),
            now,
            is_error=status != "success",
            title=text(call, "description"),
            metadata=metadata,
            attachments=files,
        )

    def _finish_call(self, part: object) -> bool:
        """Whether a part is the result of a call; it is noted there."""
        match part:
            case {"functionResponse": {"name": str(name)}} if name in self._calls:
                output, files, others = _result([part])
                metadata: JsonObject = {"result": others} if others else {}
                self._calls.pop(name).finish(output, self._made.now, metadata=metadata, attachments=files)
                return True
            case _:
                return False

    def _add_content(self, message: Message, content: object, *, is_prompt: bool) -> None:
        parts = content if isinstance(content, list) else [] if content is None else [content]
        for part in parts:
            match part:
                case str(words) | {"text": str(words)}:
                    if isinstance(part, dict) and part.get("thought") is True:
                        message.reasoning(words, self._made.now)
                    elif words and is_prompt:
                        self._made.prompt(message.prompt(words))
                    elif words:
                        message.text(words)
                case {"inlineData": dict(inline)}:
                    message.file(*_inline(inline), filename=text(inline, "displayName"))
                case {"fileData": dict(file)} if uri := text(file, "fileUri"):
                    message.file(text(file, "mimeType") or "application/octet-stream", uri)
                case {"functionCall": {"name": str(name)}}:
                    arguments = obj(obj(_fields(part), "functionCall"), "args")
                    known, arguments = opencode_tool(name, arguments)
                    self._calls[name] = message.tool(known, arguments, name, self._made.now)
                case _ if not self._finish_call(part):
                    message.keep("content", part)


def _fields(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _inline(inline: JsonObject) -> tuple[str, str]:
    mime = text(inline, "mimeType") or "application/octet-stream"
    return mime, f"data:{mime};base64,{text(inline, 'data')}"


def _result(result: object) -> tuple[str, list[JsonObject], list[object]]:
    """Return what a tool answered: its text, its files, and what is neither."""
    words: list[str] = []
    files: list[JsonObject] = []
    others: list[object] = []
    for part in result if isinstance(result, list) else [] if result is None else [result]:
        match part:
            case str(told) | {"text": str(told)}:
                words.append(told)
            case {"functionResponse": {"response": {"output": str(told)}}}:
                words.append(told)
            case {"functionResponse": {"response": {"error": str(told)}}}:
                words.append(told)
            case {"functionResponse": {"response": response}}:
                words.append(jsontext.indented(response))
            case {"inlineData": dict(inline)}:
                mime, url = _inline(inline)
                files.append({"mime": mime, "url": url})
            case _:
                others.append(part)
    return "\n".join(words), files, others


def _plain(content: object) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(text(part, "text") for part in objects(content))
