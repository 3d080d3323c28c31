"""What an agent is, and what callers say of one."""

from __future__ import annotations

import re
import secrets
import time
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from rpcshare.auth.subject_sources import organization_of
from rpcshare.errors import ErrorCode, ShareError

__all__ = [
    "Agent",
    "AgentEvent",
    "AgentRequest",
    "AgentStatus",
    "Attachment",
    "Budget",
    "Delivery",
    "MessageState",
    "QueuedMessage",
    "RequestKind",
    "RequestState",
    "Spent",
    "StartOptions",
    "is_session_id",
    "new_id",
    "parse_start",
    "unknown_agent",
]

JSONObject: TypeAlias = dict[str, Any]

_SESSION_ID = re.compile(r"ses_[A-Za-z0-9]{1,60}")
_MESSAGE_ID = re.compile(r"msg_[A-Za-z0-9]{1,60}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

LONGEST_CONTENT = 1_000_000
"""Characters of one message."""
LONGEST_TITLE = 200
MAX_RULES = 100
MAX_ATTACHMENTS = 16
MAX_ATTACHMENT_BYTES = 8 * 2**20
"""Of all attachments of one message, as data URLs."""
MAX_QUEUED = 100
"""Messages of one agent that wait."""
MAX_QUEUED_SIZE = 4 * MAX_ATTACHMENT_BYTES
"""Characters of them, with their attachments."""


class AgentStatus(StrEnum):
    """What an agent is doing."""

    INITIALIZING = "initializing"
    """Its sandbox or its session is being made."""
    RUNNING = "running"
    """A turn is under way, or about to be."""
    IDLE = "idle"
    """It waits for a message. Its process may be stopped; a message starts it again."""
    BLOCKED = "blocked"
    """A turn waits for somebody to answer."""
    PAUSED = "paused"
    """What is sent waits until it is resumed: somebody has paused it, or its budget is spent."""
    INTERRUPTED = "interrupted"
    """A turn was cut off, by the end of a process, a server or a node. It goes on with the next message, or
    when it is resumed."""
    TERMINATED = "terminated"
    """For good. Its transcript stays."""
    FAILED = "failed"
    """It could not be started; ``error`` says why."""

    @property
    def is_over(self) -> bool:
        """Whether it takes no more messages."""
        return self in (AgentStatus.TERMINATED, AgentStatus.FAILED)

    @property
    def is_busy(self) -> bool:
        """Whether a turn is under way."""
        return self in (AgentStatus.INITIALIZING, AgentStatus.RUNNING, AgentStatus.BLOCKED)


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an agent may spend; None: as much as it likes."""

    dollars: float | None = None
    tokens: int | None = None
    turns: int | None = None


class Spent(msgspec.Struct, frozen=True):
    """What an agent has spent, with its sub-agents."""

    dollars: float = 0.0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    turns: int = 0

    @property
    def tokens(self) -> int:
        """All of them, as a budget counts."""
        return self.input + self.output + self.cache_read + self.cache_write

    def exceeds(self, budget: Budget) -> str | None:
        """Return which limit of ``budget`` is reached, as a sentence; None: none is."""
        if budget.dollars is not None and self.dollars >= budget.dollars:
            return f"the budget of ${budget.dollars:g} is spent (${self.dollars:.4f})"
        if budget.tokens is not None and self.tokens >= budget.tokens:
            return f"the budget of {budget.tokens:,} tokens is spent ({self.tokens:,})"
        if budget.turns is not None and self.turns >= budget.turns:
            return f"the budget of {budget.turns:,} turns is spent"
        return None


class Agent(msgspec.Struct, frozen=True):
    """A row. Times are milliseconds since the epoch."""

    id: str
    """The session's ID, ``ses_…``: the one that opencode has, too."""
    owner: str
    """As shares have it (:mod:`rpcshare.auth.subject_sources`)."""
    workspace: str
    share_id: str
    share_url: str
    status: AgentStatus
    title: str
    model: str
    """``NAME/model`` of the settings."""
    mode: str
    """Which of opencode's agents answers: ``build``, ``plan``, or one of the workspace's; empty: opencode's
    default."""
    permission: tuple[JSONObject, ...]
    """opencode's rules: ``{permission, pattern, action: "allow"|"ask"|"deny"}``."""
    budget: Budget
    spent: Spent
    parent: str | None
    """The agent whose sub-agent it is."""
    error: str | None
    created_at: int
    last_active_at: int
    events: int = 0
    """The number of its last event."""
    sync_seq: int = -1
    """The last of opencode's own events that is in the share."""

    @property
    def organization(self) -> str | None:
        """The organization of its owner; None for an owner who is no user."""
        return organization_of(self.owner)

    def described(self) -> JSONObject:
        """Return it by the names of the wire."""
        spent = self.spent
        return {
            "id": self.id,
            "share": {"id": self.share_id, "url": self.share_url},
            "workspace": self.workspace,
            "status": self.status.value,
            "title": self.title,
            "model": self.model,
            "agent": self.mode,
            "parent": self.parent,
            "createdAt": self.created_at,
            "lastActiveAt": self.last_active_at,
            "cost": spent.dollars,
            "tokens": {
                "input": spent.input,
                "output": spent.output,
                "cacheRead": spent.cache_read,
                "cacheWrite": spent.cache_write,
                "total": spent.tokens,
            },
            "turns": spent.turns,
            "budget": msgspec.to_builtins(self.budget),
            **({} if self.error is None else {"error": self.error}),
        }


class Delivery(StrEnum):
    """When a message is delivered to an agent that is busy."""

    QUEUE = "queue"
    """When the turn under way, and what was queued before, has ended."""
    STEER = "steer"
    """Before the next step of the turn under way."""


class MessageState(StrEnum):
    """How far a message is."""

    QUEUED = "queued"
    SENT = "sent"
    """opencode has it, or is being given it: its turn is under way."""
    ENDED = "ended"
    """Its turn has ended."""
    INTERRUPTED = "interrupted"
    """Its turn was cut off."""
    DROPPED = "dropped"
    """It was taken out of the queue, or its agent was terminated."""


class Attachment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A file that goes with a message: its content as a ``data:`` URL."""

    url: str
    mime_type: str
    filename: str = ""


class QueuedMessage(msgspec.Struct, frozen=True):
    """A message to an agent. Times are milliseconds since the epoch."""

    id: str
    """``msg_…``, as ``send`` has returned it."""
    agent: str
    number: int
    """Its place among the agent's messages."""
    content: str
    attachments: tuple[Attachment, ...]
    delivery: Delivery
    state: MessageState
    created_at: int
    transcript_id: str | None = None
    """The message's ID in the transcript, once it is sent. opencode puts messages in the order of their IDs,
    so what has
    waited gets a new one."""
    command: str | None = None
    """Which of opencode's commands is run, with the content as its arguments; None: it is a prompt."""

    @property
    def size(self) -> int:
        """Characters of the content and the attachments."""
        return len(self.content) + sum(len(each.url) for each in self.attachments)

    def described(self) -> JSONObject:
        """Return it by the names of the wire."""
        return {
            "messageID": self.id,
            "content": self.content,
            **({} if self.command is None else {"command": self.command}),
            "attachments": [
                {"filename": each.filename, "mimeType": each.mime_type} for each in self.attachments
            ],
            "delivery": self.delivery.value,
            "state": self.state.value,
            "createdAt": self.created_at,
            "transcriptID": self.transcript_id,
        }


class RequestKind(StrEnum):
    """What somebody has to answer."""

    APPROVAL = "approval"
    """Whether a tool may do something."""
    QUESTION = "question"
    """Questions with options."""


class RequestState(StrEnum):
    """Whether it has been answered."""

    ASKED = "asked"
    ANSWERED = "answered"
    WITHDRAWN = "withdrawn"
    """Nobody waits for an answer any more: the turn has ended otherwise."""


class AgentRequest(msgspec.Struct, frozen=True):
    """An approval or a question. Times are milliseconds since the epoch."""

    id: str
    """opencode's: ``per_…`` or ``que_…``."""
    agent: str
    kind: RequestKind
    state: RequestState
    asked: JSONObject
    """Of an approval ``{permission, patterns, always, metadata, tool?}``; of a question ``{questions:
    [{question, header,
    options: [{label, description}], multiple?, custom?}], tool?}``. Credentials are redacted."""
    asked_at: int
    answer: JSONObject | None = None
    """``{reply, note?}``, ``{answers}`` or ``{rejected: true}``."""
    answered_by: str | None = None
    answered_at: int | None = None

    def described(self) -> JSONObject:
        """Return it by the names of the wire."""
        return {
            "id": self.id,
            "agent": self.agent,
            "kind": self.kind.value,
            "state": self.state.value,
            "askedAt": self.asked_at,
            **self.asked,
            **({} if self.answer is None else {"answer": self.answer, "answeredBy": self.answered_by}),
        }


class AgentEvent(msgspec.Struct, frozen=True):
    """What has happened to an agent, beside what its transcript says."""

    number: int
    type: str
    """``status``, ``turn``, ``approval``, ``question``, ``file`` or ``budget``."""
    at: int
    data: JSONObject

    def described(self, cursor: str) -> JSONObject:
        """Return it by the names of the wire."""
        head = {"type": self.type, "cursor": cursor, "at": self.at}
        return {**head, **self.data, **head}


class StartOptions(msgspec.Struct, frozen=True):
    """What ``start`` takes, checked by :func:`parse_start`."""

    workspace: str
    prompt: str | None = None
    title: str | None = None
    model: str | None = None
    agent: str | None = None
    permission: tuple[JSONObject, ...] = ()
    resources: JSONObject | None = None
    budget: Budget = Budget()


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    permission: str
    pattern: str
    action: str


class _Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    workspace: str | None = None
    prompt: str | None = None
    title: str | None = None
    model: str | None = None
    agent: str | None = None
    permission: list[_Rule] | dict[str, str] | None = None
    resources: dict[str, Any] | None = None
    budget: Budget | None = None


def parse_start(given: object) -> StartOptions:
    """Return what ``start`` was given.

    It is ``{workspace, prompt?, title?, model?, agent?, permission?, resources?, budget?}``. ``permission``
    is a list of opencode's rules, or ``{permission: action}`` for the pattern ``*``.

    Raises:
        ShareError: INVALID_ARGUMENT: names what is wrong.
    """
    if not isinstance(given, dict):
        raise _wrong(
            "expected {workspace, prompt?, title?, model?, agent?, permission?, resources?, budget?}"
        )
    try:
        new = msgspec.convert(given, _Given)
    except msgspec.ValidationError as exc:
        raise _wrong(str(exc)) from None
    if new.workspace is None:
        raise _wrong("workspace: is missing")
    if new.prompt is not None:
        check_content(new.prompt, "prompt")
    title = new.title
    if title is not None and not (0 < len(title) <= LONGEST_TITLE and title.isprintable()):
        raise _wrong(f"title: must be 1 to {LONGEST_TITLE} printable characters")
    if new.agent is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", new.agent):
        raise _wrong("agent: must be 1 to 64 letters, digits, _ and -")
    return StartOptions(
        new.workspace,
        new.prompt,
        title,
        new.model,
        new.agent,
        _rules(new.permission),
        new.resources,
        _checked_budget(new.budget or Budget()),
    )


def check_content(content: str, place: str = "content") -> None:
    """Return if ``content`` can be a message. Raises ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE."""
    if not content.strip():
        raise _wrong(f"{place}: is empty")
    if len(content) > LONGEST_CONTENT:
        message = f"{place}: has {len(content):,} characters (at most {LONGEST_CONTENT:,})"
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)


def parse_attachments(given: object) -> tuple[Attachment, ...]:
    """Return the attachments ``[{url, mimeType, filename?}]`` of a message.

    Raises:
        ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
    """
    if given is None:
        return ()
    try:
        found = msgspec.convert(given, list[Attachment])
    except msgspec.ValidationError as exc:
        raise _wrong(f"attachments: {exc}") from None
    if len(found) > MAX_ATTACHMENTS:
        raise _wrong(f"attachments: at most {MAX_ATTACHMENTS}")
    if sum(len(each.url) for each in found) > MAX_ATTACHMENT_BYTES:
        message = f"attachments: more than {MAX_ATTACHMENT_BYTES:,} bytes in all"
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    for each in found:
        # Any other URL is one that the sandbox would be sent to, or a path of its own.
        if not each.url.startswith("data:"):
            raise _wrong("attachments: url: must be a data: URL, which has the content in it")
        if not re.fullmatch(r"[\w.+-]+/[\w.+-]+", each.mime_type) or not each.filename.isprintable():
            raise _wrong("attachments: mimeType must be like text/plain, and filename printable")
    return tuple(found)


def check_command(name: str, arguments: str) -> None:
    """Return if it can be a command of opencode's. Raises ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,63}", name):
        raise _wrong("name: must be 1 to 64 letters, digits, _, -, ., : and /")
    if len(arguments) > LONGEST_CONTENT:
        message = f"arguments: at most {LONGEST_CONTENT:,} characters"
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)


def check_message_id(value: str) -> str:
    """Return ``value`` if it can be a message's ID. Raises ShareError: INVALID_ARGUMENT."""
    if not _MESSAGE_ID.fullmatch(value):
        raise _wrong("id: must be msg_ and 1 to 60 letters and digits")
    return value


def is_session_id(text: str) -> bool:
    """Whether ``text`` looks like the ID of an agent."""
    return _SESSION_ID.fullmatch(text) is not None


def new_id(prefix: str, *, descending: bool = False) -> str:
    """Return an ID as opencode makes them, in the order of time; ``descending``: the newest first.

    The first 12 digits are milliseconds times 4,096 and a counter, in hexadecimal; the rest is chance.
    """
    moment = max(time.time_ns() // 1_000_000 * 4096 + 1, _last[0] + 1)
    _last[0] = moment
    value = (~moment if descending else moment) & (2**48 - 1)
    return f"{prefix}_{value:012x}{''.join(secrets.choice(_ALPHABET) for _ in range(14))}"


_last = [0]


def unknown_agent() -> ShareError:
    """Return the error for an ID of no agent, or of none that the caller may use: they look alike."""
    return ShareError(ErrorCode.SESSION_NOT_FOUND, "there is no such agent")


def _rules(given: list[_Rule] | dict[str, str] | None) -> tuple[JSONObject, ...]:
    rules = [_Rule(name, "*", action) for name, action in given.items()] if isinstance(given, dict) else given
    found = rules or []
    if len(found) > MAX_RULES:
        raise _wrong(f"permission: at most {MAX_RULES} rules")
    for rule in found:
        if rule.action not in ("allow", "ask", "deny"):
            raise _wrong('permission: an action is "allow", "ask" or "deny"')
        if not 0 < len(rule.permission) <= 64 or not 0 < len(rule.pattern) <= 1000:
            raise _wrong(
                "permission: a rule has a permission of at most 64 and a pattern of at most 1,000 characters"
            )
    return tuple(msgspec.to_builtins(rule) for rule in found)


def _checked_budget(budget: Budget) -> Budget:
    dollars = budget.dollars
    if dollars is not None and not 0 < dollars < 1e9:
        raise _wrong("budget.dollars: must be more than 0")
    for name, number in (("tokens", budget.tokens), ("turns", budget.turns)):
        if number is not None and not 0 < number < 2**53:
            raise _wrong(f"budget.{name}: must be more than 0")
    return budget


def _wrong(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
