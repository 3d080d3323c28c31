"""Makes SyncData of another agent's transcript, in the shapes that opencode has.

Ids follow from the session and the place of an entry, so that a transcript that has grown replaces what was
shared of it before. They begin as opencode's do, and are in order: that is how opencode sorts.
"""

from hashlib import blake2b
from typing import Any

from rpcshare.transcripts.json_fields import JsonObject, entry_text, milliseconds
from rpcshare.transcripts.prompts import read_prompt
from rpcshare.transcripts.session_file import LocatedItem

__all__ = ["Conversation", "Message", "Tool"]

_TITLE_LENGTH = 100  # characters


class Tool:
    """A call of a tool, whose result may come with a later entry."""

    def __init__(self, part: JsonObject, time: int) -> None:
        self._part = part
        self._start = time

    @property
    def input(self) -> JsonObject:
        """What the tool was called with."""
        arguments: JsonObject = self._part["state"]["input"]
        return arguments

    @property
    def is_open(self) -> bool:
        """Whether no result has come."""
        return bool(self._part["state"]["status"] == "running")

    def finish(
        self,
        output: str,
        time: int,
        *,
        is_error: bool = False,
        title: str = "",
        metadata: JsonObject | None = None,
        attachments: list[JsonObject] | None = None,
    ) -> None:
        """Note the result of the call."""
        times = {"start": self._start, "end": max(self._start, time)}
        state: JsonObject = {"status": "error" if is_error else "completed", "input": self.input}
        if is_error:
            state["error"] = output
        else:
            state |= {"output": output, "title": title}
        state |= {"metadata": {**self._part["state"].get("metadata", {}), **(metadata or {})}, "time": times}
        if attachments and not is_error:
            shared = {name: self._part[name] for name in ("sessionID", "messageID")}
            state["attachments"] = [
                {"id": f"{self._part['id']}f{index}", **shared, "type": "file", **each}
                for index, each in enumerate(attachments)
            ]
        self._part["state"] = state

    def note(self, metadata: JsonObject) -> None:
        """Add to what is known of the call beside its result."""
        self._part["state"].setdefault("metadata", {}).update(metadata)


class Message:
    """A message, to which parts are added."""

    def __init__(self, info: JsonObject, parts: list[JsonObject]) -> None:
        self.info = info
        self._parts = parts  # of the whole conversation
        self._stem = info["id"].removeprefix("msg_")
        self._count = 0
        self.is_context = info["role"] == "user"
        """Whether it is a message of the user's in which nobody typed anything."""

    def add(self, kind: str, **fields: Any) -> JsonObject:  # noqa: ANN401 -- any part's fields
        """Add a part."""
        self._count += 1
        self.is_context = self.is_context and fields.get("synthetic") is True
        part = {
            "id": f"prt_{self._stem}{self._count:05d}",
            "sessionID": self.info["sessionID"],
            "messageID": self.info["id"],
            "type": kind,
            **fields,
        }
        self._parts.append(part)
        return part

    def text(self, content: str) -> None:
        """Add prose."""
        self.add("text", text=content)

    def context(self, content: str, name: str = "") -> None:
        """Add what nobody typed, and how it is called."""
        more = {"metadata": {"entry": name}} if name else {}
        self.add("text", text=content, synthetic=True, **more)

    def prompt(self, words: str) -> str:
        """Add what a user sent, and return what was typed of it; the rest is context."""
        prompt = read_prompt(words)
        for name, content in prompt.context:
            self.context(content, name)
        if prompt.typed or not prompt.context:
            self.text(prompt.typed)
        return prompt.typed

    def reasoning(self, content: str, time: int, metadata: JsonObject | None = None) -> None:
        """Add what a model thought."""
        more = {"metadata": metadata} if metadata else {}
        self.add("reasoning", text=content, time={"start": time, "end": time}, **more)

    def tool(self, name: str, arguments: JsonObject, call_id: str, time: int) -> Tool:
        """Add a call of a tool."""
        state = {"status": "running", "input": arguments, "time": {"start": time}}
        return Tool(self.add("tool", tool=name, callID=call_id, state=state), time)

    def file(self, mime: str, url: str, filename: str = "") -> None:
        """Add a file."""
        more = {"filename": filename} if filename else {}
        self.add("file", mime=mime, url=url, **more)

    def keep(self, kind: str, entry: object) -> None:
        """Add an entry that has no form here, as its kind and its JSON."""
        self.context(entry_text(kind, entry), kind)


class Conversation:
    """The messages of a transcript, in its order."""

    def __init__(self, agent: str, provider: str, session_id: str) -> None:
        """Begin.

        Args:
            agent: who wrote the transcript, such as ``codex``.
            provider: whose models it uses, unless a message says.
            session_id: the session's own id.
        """
        self.session_id = session_id
        self.directory = ""
        self.title = ""
        self.version = ""
        self.model = ""
        self.provider = provider
        self.metadata: JsonObject = {}
        self.now = 0
        """The latest time that was seen, in milliseconds since the epoch. Time does not go back: it is by
        time that messages are sorted."""
        self._agent = agent
        self._digest = blake2b(session_id.encode(), digest_size=6).hexdigest()
        self._messages: list[JsonObject] = []
        self._parts: list[JsonObject] = []
        self._begun = 0
        self._last_user = ""
        self._open: Message | None = None
        self._first_prompt = ""

    def at(self, timestamp: object) -> int:
        """Take the time of an entry, and return the time by which it is sorted."""
        time = milliseconds(timestamp)
        if time and not self._begun:
            self._begun = time
        self.now = max(self.now, time)
        return self.now

    def user(self, *, agent: str = "") -> Message:
        """Begin a message of the user's, or go on with one in which nothing has been typed yet."""
        agent = agent or self._agent
        if self._open is not None and self._open.is_context and self._open.info["agent"] == agent:
            self._open.info["time"]["created"] = self.now
            return self._open
        message = self._message("user", agent)
        self._last_user = message.info["id"]
        return message

    def assistant(self, *, agent: str = "") -> Message:
        """Begin a message of the agent's."""
        message = self._message("assistant", agent or self._agent)
        message.info |= {
            "parentID": self._last_user or message.info["id"],
            "modelID": self.model or "unknown",
            "providerID": self.provider,
            "mode": agent or self._agent,
            "path": {"cwd": self.directory, "root": self.directory},
            "cost": 0,
            "tokens": {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}},
        }
        message.info["time"]["completed"] = self.now
        return message

    def current(self) -> Message:
        """Return the message that an entry belongs to which begins none of its own."""
        return self._open or self.user()

    def answer(self) -> Message:
        """Return the agent's message that is under way; a new one if the last is the user's."""
        message = self._open
        return message if message is not None and message.info["role"] == "assistant" else self.assistant()

    def prompt(self, content: str) -> None:
        """Note what the user typed: the first one is the title, if the transcript has none."""
        self._first_prompt = self._first_prompt or " ".join(content.split())[:_TITLE_LENGTH]

    def items(self) -> list[LocatedItem]:
        """Return the SyncData of all of it."""
        for message in self._messages:
            if message["role"] == "user":
                message["model"] = {"providerID": self.provider, "modelID": self.model or "unknown"}
            elif message["modelID"] == "unknown" and self.model:  # it was told later
                message["modelID"] = self.model
        session = {
            "id": self.session_id,
            "slug": self.session_id,
            "projectID": "",
            "directory": self.directory,
            "title": self.title or self._first_prompt,
            "version": self.version or "1",
            "time": {"created": self._begun, "updated": self.now},
            "metadata": {"agent": self._agent, **self.metadata},
        }
        made: list[JsonObject] = [{"type": "session", "data": session}]
        by_message: dict[str, list[JsonObject]] = {}
        for part in self._parts:
            by_message.setdefault(part["messageID"], []).append(part)
        for message in self._messages:
            made.append({"type": "message", "data": message})
            made += ({"type": "part", "data": part} for part in by_message.get(message["id"], ()))
        models = dict.fromkeys(
            (message["providerID"], message["modelID"])
            for message in self._messages
            if message["role"] == "assistant" and message["modelID"] != "unknown"
        )
        if models:
            data = [{"id": model, "providerID": provider, "name": model} for provider, model in models]
            made.append({"type": "model", "data": data})
        return [LocatedItem(item, f"item {index}") for index, item in enumerate(made)]

    def _message(self, role: str, agent: str) -> Message:
        info: JsonObject = {
            "id": f"msg_{len(self._messages) + 1:08d}{self._digest}",
            "sessionID": self.session_id,
            "role": role,
            "time": {"created": self.now},
            "agent": agent,
        }
        self._messages.append(info)
        self._open = Message(info, self._parts)
        return self._open
