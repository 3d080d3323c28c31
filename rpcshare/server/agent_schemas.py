"""What programs send about agents, and are answered, over HTTP: for the document of the API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "AgentInfo",
    "AgentRequestInfo",
    "AnswerBody",
    "CommandBody",
    "ForkBody",
    "LinkInfo",
    "MessageBody",
    "NewSessionBody",
    "QueuedMessageInfo",
    "Removed",
    "ResumeBody",
    "RevertBody",
    "Sent",
    "Started",
]

Status = Literal[
    "initializing", "running", "idle", "blocked", "paused", "interrupted", "terminated", "failed"
]


class BudgetBody(msgspec.Struct, omit_defaults=True):
    """What an agent may spend."""

    dollars: float | None = None
    tokens: int | None = None
    turns: int | None = None


class SessionConfig(msgspec.Struct):
    """How an agent is to work."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    model: str | None = None
    agent: str | None = None
    permission: list[dict[str, Any]] | dict[str, Literal["allow", "ask", "deny"]] | None = None
    resources: dict[str, Any] | None = None
    budget: BudgetBody | None = None


class NewSessionBody(msgspec.Struct):
    """What starts an agent."""

    workspace: str
    config: SessionConfig | None = None
    prompt: str | None = None


class ShareLink(msgspec.Struct):
    """Where a transcript is."""

    id: str
    url: str


class Started(msgspec.Struct, rename="camel"):
    """An agent that has been started."""

    session_id: str
    status: Status
    websocket_url: str
    share: ShareLink


class TokenCounts(msgspec.Struct, rename="camel"):
    """Tokens of an agent and its sub-agents."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    total: int


class AgentInfo(msgspec.Struct, rename="camel"):
    """What is known of an agent. Times are milliseconds since the epoch."""

    id: str
    share: ShareLink
    workspace: str
    status: Status
    title: str
    model: str
    agent: str
    parent: str | None
    created_at: int
    last_active_at: int
    cost: float
    tokens: TokenCounts
    turns: int
    budget: BudgetBody
    websocket_url: str
    error: str | msgspec.UnsetType = msgspec.UNSET


class AttachmentBody(msgspec.Struct, rename="camel"):
    """A file that goes with a message."""

    url: Annotated[str, msgspec.Meta(pattern="^data:")]
    mime_type: str
    filename: str = ""


class MessageBody(msgspec.Struct):
    """A message to an agent."""

    content: Annotated[str, msgspec.Meta(min_length=1)]
    attachments: list[AttachmentBody] | None = None
    id: Annotated[str, msgspec.Meta(pattern="^msg_[A-Za-z0-9]{1,60}$")] | None = None
    delivery: Literal["queue", "steer"] | None = None


class CommandBody(msgspec.Struct):
    """One of opencode's commands."""

    name: str
    arguments: str = ""


class Sent(msgspec.Struct):
    """A message that is kept."""

    message_id: str = msgspec.field(name="messageID")


class AttachmentInfo(msgspec.Struct, rename="camel"):
    """A file that goes with a message, without its content."""

    filename: str
    mime_type: str


class QueuedMessageInfo(msgspec.Struct, rename="camel"):
    """A message that waits, or whose turn is under way."""

    content: str
    attachments: list[AttachmentInfo]
    delivery: Literal["queue", "steer"]
    state: Literal["queued", "sent", "ended", "interrupted", "dropped"]
    created_at: int
    message_id: str = msgspec.field(name="messageID")
    transcript_id: str | None = msgspec.field(name="transcriptID")
    command: str | msgspec.UnsetType = msgspec.UNSET


class Removed(msgspec.Struct):
    """Whether a message was still in the queue."""

    removed: bool


class AgentRequestInfo(msgspec.Struct, rename="camel"):
    """An approval or a question, with what is asked: of an approval, or of a question."""

    id: str
    agent: str
    kind: Literal["approval", "question"]
    state: Literal["asked", "answered", "withdrawn"]
    asked_at: int
    permission: str | msgspec.UnsetType = msgspec.UNSET
    patterns: list[str] | msgspec.UnsetType = msgspec.UNSET
    questions: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    answer: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    answered_by: str | msgspec.UnsetType | None = msgspec.UNSET


class AnswerBody(msgspec.Struct):
    """An answer: to an approval a word; to questions labels for each."""

    answer: Literal["once", "always", "reject"] | list[list[str]] | str
    note: str | None = None


class LinkInfo(msgspec.Struct, rename="camel"):
    """A link that answers one request once."""

    url: str
    expires_at: int


class ResumeBody(msgspec.Struct):
    """With what an agent goes on."""

    budget: BudgetBody | None = None


class ForkBody(msgspec.Struct):
    """Up to where an agent is copied."""

    message_id: str | None = msgspec.field(name="messageID", default=None)


class RevertBody(msgspec.Struct):
    """What is taken back, with all behind it."""

    message_id: str = msgspec.field(name="messageID")
