"""Transcripts of Claude Code: ``~/.claude/projects/*/*.jsonl``, and what it prints as ``stream-json``.

An entry a line, each with a ``type``. An answer comes as several entries of one message id; the result of a
tool comes in an entry of the user's. Nothing documents the form, so an entry that is not known is kept.
"""

from rpcshare.transcripts.conversation import Conversation, Message, Tool
from rpcshare.transcripts.json_fields import JsonObject, boolean, number, obj, objects, text
from rpcshare.transcripts.session_file import SessionFile
from rpcshare.transcripts.tools import diff_of_patch, opencode_tool

__all__ = ["is_claude_code", "read_claude_code"]

_KIND = "a Claude Code transcript"
_IDS = ("sessionId", "session_id", "uuid", "leafUuid", "messageId")
_TYPES = frozenset({"user", "assistant", "system", "progress", "attachment", "result"})
_OWN_TYPES = frozenset(
    {"summary", "file-history-snapshot", "queue-operation", "custom-title", "ai-title", "last-prompt"}
)
_TITLES = {"custom-title": "customTitle", "ai-title": "aiTitle", "summary": "summary"}  # the best one first


def is_claude_code(entries: list[JsonObject]) -> bool:
    """Whether entries are such a transcript's."""
    return any(
        text(entry, "type") in _OWN_TYPES
        or (
            text(entry, "type") in _TYPES
            and (isinstance(entry.get("message"), dict) or any(name in entry for name in _IDS))
        )
        for entry in entries
    )


def read_claude_code(entries: list[JsonObject], session_id: str | None = None) -> SessionFile:
    """Return the session that ``entries`` tell of, under its own id or ``session_id``."""
    ids = (text(entry, "sessionId", "session_id") for entry in entries)
    own = session_id or next(filter(None, ids), None)
    reader = _Reader(own or "claude-code")
    for entry in entries:
        reader.read(entry)
    return SessionFile(_KIND, reader.conversation().items(), own)


class _Reader:
    def __init__(self, session_id: str) -> None:
        self._made = Conversation("claude-code", "anthropic", session_id)
        self._tools: dict[str, Tool] = {}
        self._message_id = ""  # of the answer that is under way
        self._titles: dict[str, str] = {}

    def conversation(self) -> Conversation:
        """Return what has been read."""
        self._made.title = next((self._titles[kind] for kind in _TITLES if kind in self._titles), "")
        return self._made

    def read(self, entry: JsonObject) -> None:
        """Read the next entry."""
        made = self._made
        made.at(entry.get("timestamp"))
        made.directory = made.directory or text(entry, "cwd")
        made.version = made.version or text(entry, "version")
        if branch := text(entry, "gitBranch"):
            made.metadata["gitBranch"] = branch
        kind = text(entry, "type")
        if kind in _TITLES:
            self._titles[kind] = text(entry, _TITLES[kind]) or self._titles.get(kind, "")
        message = entry.get("message")
        if kind == "user" and isinstance(message, dict):
            self._read_user(entry, message)
        elif kind == "assistant" and isinstance(message, dict):
            self._read_assistant(entry, message)
        else:
            if kind == "system" and text(entry, "subtype") == "compact_boundary":
                is_auto = text(obj(entry, "compactMetadata"), "trigger") == "auto"
                made.current().add("compaction", auto=is_auto)
            made.current().keep(_name(entry), entry)

    def _read_user(self, entry: JsonObject, message: JsonObject) -> None:
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(blocks, list):
            self._made.current().keep("user", entry)
            return
        others = [block for block in blocks if not self._finish_tool(entry, block)]
        if not others and blocks:
            return
        is_synthetic = boolean(entry, "isMeta") or boolean(entry, "isCompactSummary")
        user = self._made.user(agent=_agent(entry))
        self._message_id = ""
        typed = [self._add_prompt(user, block, is_synthetic=is_synthetic) for block in others]
        if not blocks:
            user.keep("user", entry)
        if not boolean(entry, "isSidechain"):
            self._made.prompt(" ".join(filter(None, typed)))

    def _add_prompt(self, user: Message, block: object, *, is_synthetic: bool) -> str:
        """Add a block of what the user sent, and return what was typed of it."""
        match block:
            case {"type": "text", "text": str(content)} if is_synthetic:
                user.context(content)
            case {"type": "text", "text": str(content)}:
                return user.prompt(content)
            case _:
                self._add_block(user, block)
        return ""

    def _read_assistant(self, entry: JsonObject, message: JsonObject) -> None:
        made = self._made
        model = text(message, "model")
        if not model.startswith("<"):  # <synthetic>: what Claude Code itself says
            made.model = model or made.model
        message_id = text(message, "id")
        if message_id and message_id == self._message_id:
            answer = made.answer()
        else:
            answer = made.assistant(agent=_agent(entry))
            self._message_id = message_id
        self._note_usage(answer, message)
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(blocks, list) or not blocks:
            answer.keep("assistant", entry)
            return
        for block in blocks:
            self._add_block(answer, block)
        if boolean(entry, "isApiErrorMessage"):
            told = " ".join(text(block, "text") for block in objects(blocks))
            answer.info["error"] = {"name": "UnknownError", "data": {"message": told}}

    def _note_usage(self, answer: Message, message: JsonObject) -> None:
        usage = obj(message, "usage")
        if usage:
            cache = {
                "read": number(usage, "cache_read_input_tokens"),
                "write": number(usage, "cache_creation_input_tokens"),
            }
            answer.info["tokens"] = {
                "input": number(usage, "input_tokens"),
                "output": number(usage, "output_tokens"),
                "reasoning": 0,
                "cache": cache,
            }
        if reason := text(message, "stop_reason"):
            answer.info["finish"] = reason
        answer.info["time"]["completed"] = self._made.now

    def _add_block(self, message: Message, block: object) -> None:
        now = self._made.now
        fields = _fields(block)
        match block:
            case {"type": "text", "text": str(content)}:
                message.text(content)
            case {"type": "thinking", "thinking": str(content)} if content:
                message.reasoning(content, now)
            case {"type": "tool_use" | "server_tool_use", "name": str(name)}:
                call_id = text(fields, "id")
                tool, arguments = opencode_tool(name, obj(fields, "input"))
                self._tools[call_id] = message.tool(tool, arguments, call_id, now)
            case {"type": "image" | "document", "source": dict(source)} if file := _file(source):
                message.file(*file, filename=text(fields, "title"))
            case {"type": str(kind), "tool_use_id": str(call_id)} if kind.endswith("_tool_result"):
                self._finish(call_id, fields, {})  # of a tool of the provider's own
            case {"type": str(kind)}:
                message.keep(kind, block)
            case _:
                message.keep("content", block)

    def _finish_tool(self, entry: JsonObject, block: object) -> bool:
        """Whether ``block`` is the result of a tool that was called; it is noted there."""
        match block:
            case {"type": "tool_result", "tool_use_id": str(call_id)} if call_id in self._tools:
                return self._finish(call_id, _fields(block), entry)
            case _:
                return False

    def _finish(self, call_id: str, result: JsonObject, entry: JsonObject) -> bool:
        tool = self._tools.get(call_id)
        if tool is None or not tool.is_open:
            self._made.current().keep(text(result, "type"), result)
            return True
        output, attachments, others = _content(result.get("content"))
        told = entry.get("toolUseResult")
        metadata: JsonObject = {}
        if isinstance(told, dict):
            metadata = {"toolUseResult": told} | diff_of_patch(
                text(told, "filePath"), told.get("structuredPatch")
            )
        elif told is not None and told != output:
            metadata = {"toolUseResult": told}
        if others:
            metadata["content"] = others
        is_error = boolean(result, "is_error")
        tool.finish(output, self._made.now, is_error=is_error, metadata=metadata, attachments=attachments)
        return True


def _agent(entry: JsonObject) -> str:
    """Return the name of the sub-agent whose entry it is; empty for the agent's own."""
    agent_id = text(entry, "agentId")
    if not boolean(entry, "isSidechain") and not text(entry, "parent_tool_use_id"):
        return ""
    return f"sub-agent {agent_id}".strip()


def _name(entry: JsonObject) -> str:
    kind = text(entry, "type") or "entry"
    more = (
        text(entry, "subtype") or text(obj(entry, "data"), "type") or text(obj(entry, "attachment"), "type")
    )
    return f"{kind} {more}".strip()


def _fields(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _file(source: JsonObject) -> tuple[str, str] | None:
    """Return the media type and the URL of a file in a message; None if there is none."""
    mime, data = text(source, "media_type"), source.get("data")
    if text(source, "type") == "base64" and mime and isinstance(data, str):
        return mime, f"data:{mime};base64,{data}"
    if url := text(source, "url"):
        return mime or "application/octet-stream", url
    return None


def _content(content: object) -> tuple[str, list[JsonObject], list[object]]:
    """Return what a tool answered: its text, its files, and what is neither."""
    if isinstance(content, str):
        return content, [], []
    texts: list[str] = []
    files: list[JsonObject] = []
    others: list[object] = []
    for block in content if isinstance(content, list) else [] if content is None else [content]:
        match block:
            case {"type": "text", "text": str(told)}:
                texts.append(told)
            case {"type": "image" | "document", "source": dict(source)} if file := _file(source):
                files.append({"mime": file[0], "url": file[1]})
            case _:
                others.append(block)
    return "\n".join(texts), files, others
