"""Transcripts of Codex: ``~/.codex/sessions/**/rollout-*.jsonl``.

Each line is ``{timestamp, type, payload}``. A ``response_item`` is what the model was sent and answered, as
the Responses API has it; an ``event_msg`` is what was shown of it, so most of them say the same again. Older
versions wrote the items alone, behind a line about the session, or all of it as one JSON object.
"""

from typing import Any

from rpcshare import jsontext
from rpcshare.transcripts.conversation import Conversation, Message, Tool
from rpcshare.transcripts.json_fields import JsonObject, number, obj, objects, text
from rpcshare.transcripts.prompts import read_prompt
from rpcshare.transcripts.session_file import SessionFile
from rpcshare.transcripts.tools import opencode_tool

__all__ = ["is_codex", "is_old_codex", "read_codex"]

_KIND = "a Codex transcript"
_LINES = frozenset({"session_meta", "response_item", "event_msg", "turn_context", "compacted"})
_ITEMS = frozenset({"message", "reasoning", "function_call", "function_call_output", "local_shell_call"})

# What Codex puts into the user's mouth, beside elements.
_CONTEXT = ("# AGENTS.md instructions", "<user_instructions>")


def is_codex(entries: list[JsonObject]) -> bool:
    """Whether entries are such a transcript's."""
    return any(
        (text(entry, "type") in _LINES and isinstance(entry.get("payload"), dict))
        or text(entry, "record_type") == "state"
        for entry in entries
    ) or (len(entries) > 1 and _is_old_head(entries[0]) and text(entries[1], "type") in _ITEMS)


def is_old_codex(document: JsonObject) -> bool:
    """Whether a JSON object is a transcript of the first versions."""
    return isinstance(document.get("items"), list) and _is_old_head(obj(document, "session"))


def _is_old_head(entry: JsonObject) -> bool:
    return bool(text(entry, "id")) and "timestamp" in entry and "type" not in entry


def read_codex(entries: list[JsonObject], session_id: str | None = None) -> SessionFile:
    """Return the session that ``entries`` tell of, under its own id or ``session_id``."""
    own = session_id or _own_id(entries)
    reader = _Reader(own or "codex")
    for entry in entries:
        reader.read(entry)
    return SessionFile(_KIND, reader.made.items(), own)


def _own_id(entries: list[JsonObject]) -> str | None:
    for entry in entries:
        if text(entry, "type") == "session_meta":
            return text(obj(entry, "payload"), "id", "session_id") or None
        if _is_old_head(entry):
            return text(entry, "id")
    return None


class _Reader:
    def __init__(self, session_id: str) -> None:
        self.made = Conversation("codex", "openai", session_id)
        self._tools: dict[str, Tool] = {}
        # What was said since the user's turn began, by whom: it may come again in another form.
        self._said: set[tuple[str, str]] = set()

    def read(self, entry: JsonObject) -> None:
        """Read the next entry."""
        kind = text(entry, "type")
        payload = entry.get("payload")
        self.made.at(entry.get("timestamp"))
        if kind == "response_item" and isinstance(payload, dict):
            self._read_item(payload)
        elif kind == "event_msg" and isinstance(payload, dict):
            if item := obj(payload, "item"):
                self._read_completed(item, payload)
            else:
                self._read_event(payload)
        elif kind in _ITEMS and payload is None:
            self._read_item(entry)
        else:
            self._read_other(kind, entry)

    def _read_other(self, kind: str, entry: JsonObject) -> None:
        made = self.made
        payload = obj(entry, "payload")
        if kind == "session_meta" or _is_old_head(entry):
            meta = payload or entry
            made.directory = made.directory or text(meta, "cwd")
            made.version = made.version or text(meta, "cli_version")
            made.provider = text(meta, "model_provider") or made.provider
            made.metadata |= {name: meta[name] for name in ("git", "originator", "source") if meta.get(name)}
        elif kind == "turn_context":
            made.model = text(payload, "model") or made.model
            made.directory = made.directory or text(payload, "cwd")
        elif kind == "compacted":
            made.current().add("compaction", auto=True)
        made.current().keep(kind or text(entry, "record_type") or "session", entry)

    def _read_item(self, item: JsonObject) -> None:
        made = self.made
        match text(item, "type"):
            case "message":
                self._read_message(item)
            case "reasoning":
                self._read_reasoning(item)
            case "function_call":
                arguments = _arguments(item.get("arguments"))
                self._call(text(item, "name"), arguments, text(item, "call_id"))
            case "custom_tool_call":
                name, told = text(item, "name"), item.get("input")
                self._call(
                    name, {"patchText" if name == "apply_patch" else "input": told}, text(item, "call_id")
                )
            case "local_shell_call":
                self._call("local_shell", obj(item, "action"), text(item, "call_id", "id"))
            case "web_search_call":
                tool = made.answer().tool("websearch", obj(item, "action"), text(item, "id"), made.now)
                tool.finish("", made.now, metadata={"status": item.get("status")})
            case "function_call_output" | "custom_tool_call_output":
                self._finish(item)
            case kind:
                made.current().keep(kind or "response_item", item)

    def _read_message(self, item: JsonObject) -> None:
        role = text(item, "role")
        blocks = item.get("content")
        blocks = [{"type": "input_text", "text": blocks}] if isinstance(blocks, str) else blocks
        if not isinstance(blocks, list) or not blocks:
            self.made.current().keep("message", item)
            return
        typed = "\n".join(words for block in objects(blocks) if (words := _typed(role, text(block, "text"))))
        if typed and all(_is_text(block) for block in blocks) and self._was_said(role, typed):
            return
        message = self.made.answer() if role == "assistant" else self.made.user()
        if typed and role == "user":
            self._begin_turn(typed)
        self._said.add((role, typed.strip()))
        for block in blocks:
            _add_block(message, block, role)

    def _begin_turn(self, prompt: str) -> None:
        self._said.clear()
        self.made.prompt(prompt)

    def _was_said(self, role: str, words: str) -> bool:
        return bool(words.strip()) and (role, words.strip()) in self._said

    def _read_reasoning(self, item: JsonObject) -> None:
        pieces = [*objects(item.get("summary")), *objects(item.get("content"))]
        told = [words for piece in pieces if (words := text(piece, "text"))]
        sealed = text(item, "encrypted_content")
        told = [words for words in told if not self._was_said("thought", words)]
        if pieces and not told and not sealed:
            return  # all of it was shown by events
        self._said |= {("thought", words.strip()) for words in told}
        metadata = {"encrypted_content": sealed} if sealed else None
        words = "\n\n".join(told) or ("(encrypted)" if not pieces else "")
        if words or not pieces:
            self.made.answer().reasoning(words, self.made.now, metadata)

    def _call(self, name: str, arguments: JsonObject, call_id: str) -> None:
        tool, arguments = opencode_tool(name or "tool", arguments)
        self._tools[call_id] = self.made.answer().tool(tool, arguments, call_id, self.made.now)

    def _finish(self, item: JsonObject) -> None:
        tool = self._tools.get(text(item, "call_id"))
        if tool is None or not tool.is_open:
            self.made.current().keep(text(item, "type"), item)
            return
        output, metadata, attachments, has_failed = _output(item.get("output"))
        tool.finish(output, self.made.now, is_error=has_failed, metadata=metadata, attachments=attachments)

    def _read_event(self, event: JsonObject) -> None:
        kind = text(event, "type")
        words = text(event, "message", "text")
        tool = self._tools.get(text(event, "call_id"))
        match kind:
            case "user_message":
                self._read_shown_prompt(event, words)
            case "agent_message" if words:
                if not self._was_said("assistant", words):
                    self._said.add(("assistant", words.strip()))
                    self.made.answer().text(words)
            case "agent_reasoning" | "agent_reasoning_raw_content" if words:
                if not self._was_said("thought", words):
                    self._said.add(("thought", words.strip()))
                    self.made.answer().reasoning(words, self.made.now)
            case "token_count" if usage := obj(obj(event, "info"), "last_token_usage"):
                self._note_usage(usage)
            case _ if tool is not None and kind.endswith("_end"):
                tool.note({kind: event})
            case _:
                if kind == "turn_aborted":
                    error = {"name": "MessageAbortedError", "data": {"message": text(event, "reason")}}
                    self.made.answer().info["error"] = error
                elif kind == "error":
                    self.made.answer().info["error"] = {"name": "UnknownError", "data": {"message": words}}
                self.made.current().keep(kind or "event_msg", event)

    def _read_shown_prompt(self, event: JsonObject, words: str) -> None:
        told = event.get("images")
        images = _strings(told)
        if self._was_said("user", read_prompt(words).typed):
            return
        user = self.made.user()
        typed = user.prompt(words) if words else ""
        self._begin_turn(typed)
        self._said.add(("user", typed.strip()))
        for image in images:
            user.file(_mime(image), image)
        if not words and not images:
            user.keep("user_message", event)

    def _read_completed(self, item: JsonObject, event: JsonObject) -> None:
        """Read what versions from 0.147 on write of each thing that was shown, or done."""
        blocks = objects(item.get("content"))
        words = "\n".join(words for block in blocks if (words := text(block, "text"))) or text(item, "text")
        match text(item, "type"):
            case "UserMessage" if words:
                self._read_shown_prompt({"images": [text(block, "image_url") for block in blocks]}, words)
            case "AgentMessage" if words:
                if not self._was_said("assistant", words):
                    self._said.add(("assistant", words.strip()))
                    self.made.answer().text(words)
            case "Reasoning" if thoughts := _strings(item.get("summary_text")):
                for thought in thoughts:
                    if not self._was_said("thought", thought):
                        self._said.add(("thought", thought.strip()))
                        self.made.answer().reasoning(thought, self.made.now)
            case "CommandExecution" if not self._tools:  # which tell of it already, where there are any
                self._read_command(item)
            case _:
                self.made.current().keep("item_completed", event)

    def _read_command(self, item: JsonObject) -> None:
        command = item.get("command")
        words = " ".join(_strings(command)) if isinstance(command, list) else command
        tool = self.made.answer().tool("bash", {"command": words}, text(item, "id"), self.made.now)
        output = text(item, "aggregated_output") or text(item, "stdout") + text(item, "stderr")
        has_failed = item.get("exit_code") not in (0, None) or text(item, "status") == "failed"
        tool.finish(output, self.made.now, is_error=has_failed, metadata={"exit": item.get("exit_code")})

    def _note_usage(self, usage: JsonObject) -> None:
        cached = number(usage, "cached_input_tokens")
        reasoning = number(usage, "reasoning_output_tokens")
        tokens = {
            "input": max(0, number(usage, "input_tokens") - cached),
            "output": max(0, number(usage, "output_tokens") - reasoning),
            "reasoning": reasoning,
            "cache": {"read": cached, "write": 0},
        }
        answer = self.made.answer()
        answer.info["tokens"] = tokens
        answer.info["time"]["completed"] = self.made.now
        answer.add("step-finish", reason="token_count", cost=0, tokens=tokens)


def _strings(told: object) -> list[str]:
    return [each for each in told if isinstance(each, str) and each] if isinstance(told, list) else []


def _is_text(block: object) -> bool:
    return isinstance(block, dict) and isinstance(block.get("text"), str)


def _typed(role: str, words: str) -> str:
    """Return what of a text the user typed, or the model said."""
    if role == "assistant":
        return words
    return "" if role != "user" or words.lstrip().startswith(_CONTEXT) else read_prompt(words).typed


def _add_block(message: Message, block: object, role: str) -> None:
    match block:
        case {"type": "input_text" | "output_text" | "text", "text": str(words)}:
            if role == "assistant":
                message.text(words)
            elif role != "user":
                message.context(words, role)
            elif words.lstrip().startswith(_CONTEXT):
                message.context(words, "AGENTS.md")
            else:
                message.prompt(words)
        case {"type": "refusal", "refusal": str(words)}:
            message.text(words)
        case {"type": "input_image", "image_url": str(url)}:
            message.file(_mime(url), url)
        case {"type": str(kind)}:
            message.keep(kind, block)
        case _:
            message.keep("content", block)


def _arguments(told: object) -> JsonObject:
    """Return the arguments of a call, which the model has written as JSON, and not always well."""
    if isinstance(told, str):
        try:
            told = jsontext.decode(told)
        except jsontext.JSONDecodeError:
            return {"arguments": told}
    return told if isinstance(told, dict) else {} if told is None else {"arguments": told}


def _output(told: object) -> tuple[str, JsonObject, list[JsonObject], bool]:
    """Return what a call answered: its text, what is known beside that, its files, and whether it failed."""
    if isinstance(told, dict):
        has_failed = told.get("success") is False
        words, metadata, files, _ = _output(told.get("content"))
        return words, metadata, files, has_failed
    if isinstance(told, list):
        words = "\n".join(text(block, "text") for block in objects(told))
        files = [
            {"mime": _mime(url), "url": url} for block in objects(told) if (url := text(block, "image_url"))
        ]
        others = [block for block in told if not _is_text(block) and not text(_dict(block), "image_url")]
        return words, {"content": others} if others else {}, files, False
    if not isinstance(told, str):
        return "" if told is None else str(told), {}, [], False
    if told.startswith('{"output"'):
        try:
            whole = jsontext.decode(told)
        except jsontext.JSONDecodeError:
            return told, {}, [], False
        if isinstance(whole, dict) and isinstance(whole.get("output"), str):
            metadata = {**obj(whole, "metadata")}
            if "exit_code" in metadata:
                metadata["exit"] = metadata["exit_code"]
            return whole["output"], metadata, [], False
    return told, {}, [], False


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mime(url: str) -> str:
    """Return the media type that a data: URL says; of another URL, that it is an image."""
    head, found, _ = url.partition(",")
    if url.startswith("data:") and found:
        return head.removeprefix("data:").partition(";")[0] or "application/octet-stream"
    return "image/*"
