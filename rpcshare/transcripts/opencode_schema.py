"""What ``opencode import`` takes, as far as it checks it: the shapes of opencode 1.18.

A field that opencode does not need is UNSET where it is missing: null is no value of it.
"""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "PARTS",
    "STATES",
    "AnswerTime",
    "ApiFailure",
    "Assistant",
    "File",
    "Model",
    "User",
    "decode_error",
    "decode_message",
    "decode_part",
    "decode_session",
]

_SessionID = Annotated[str, msgspec.Meta(pattern="^ses")]
_MessageID = Annotated[str, msgspec.Meta(pattern="^msg")]
_PartID = Annotated[str, msgspec.Meta(pattern="^prt")]
_Natural = Annotated[int, msgspec.Meta(ge=0)]
_Values: TypeAlias = dict[str, msgspec.Raw]


class _Created(msgspec.Struct):
    created: _Natural


class _SessionTime(_Created):
    updated: _Natural


class AnswerTime(_Created):
    """When an answer was begun, and completed."""

    completed: _Natural | UnsetType = UNSET


class _Session(msgspec.Struct):
    id: _SessionID
    slug: str
    title: str
    version: str
    time: _SessionTime


class Model(msgspec.Struct, rename={"model": "modelID", "provider": "providerID"}):
    """The model that a prompt is for."""

    model: str
    provider: str
    variant: str | UnsetType = UNSET


class _Said(msgspec.Struct):
    message: str


class _ByProvider(_Said, rename={"provider": "providerID"}):
    provider: str


class _Retries(_Said):
    retries: _Natural


class _Overflow(_Said, rename="camel"):
    response_body: str | UnsetType = UNSET


class ApiFailure(_Said, rename="camel"):
    """What is known of a request that a provider refused."""

    is_retryable: bool
    status_code: _Natural | UnsetType = UNSET
    response_headers: dict[str, str] | UnsetType = UNSET
    response_body: str | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET


class _Error(msgspec.Struct, tag_field="name"):
    pass


class _UnknownError(_Error, tag="UnknownError"):
    data: _Said


class _AbortedError(_Error, tag="MessageAbortedError"):
    data: _Said


class _ContentFilterError(_Error, tag="ContentFilterError"):
    data: _Said


class _OutputLengthError(_Error, tag="MessageOutputLengthError"):
    data: _Values


class _AuthError(_Error, tag="ProviderAuthError"):
    data: _ByProvider


class _StructuredOutputError(_Error, tag="StructuredOutputError"):
    data: _Retries


class _ContextOverflowError(_Error, tag="ContextOverflowError"):
    data: _Overflow


class _ApiError(_Error, tag="APIError"):
    data: ApiFailure


_AnyError: TypeAlias = (
    _UnknownError
    | _AbortedError
    | _ContentFilterError
    | _OutputLengthError
    | _AuthError
    | _StructuredOutputError
    | _ContextOverflowError
    | _ApiError
)


class _FileDiff(msgspec.Struct):
    additions: float
    deletions: float
    file: str | UnsetType = UNSET
    patch: str | UnsetType = UNSET


class _Summary(msgspec.Struct):
    diffs: list[_FileDiff]
    title: str | UnsetType = UNSET
    body: str | UnsetType = UNSET


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


class User(msgspec.Struct, tag_field="role", tag="user", rename={"session": "sessionID"}):
    """A message of the user's."""

    id: _MessageID
    session: _SessionID
    time: _Created
    agent: str
    model: Model
    summary: _Summary | UnsetType = UNSET
    system: str | UnsetType = UNSET
    tools: dict[str, bool] | UnsetType = UNSET


class Assistant(
    msgspec.Struct,
    tag_field="role",
    tag="assistant",
    rename={"session": "sessionID", "parent": "parentID", "model": "modelID", "provider": "providerID"},
):
    """A message of the model's."""

    id: _MessageID
    session: _SessionID
    parent: _MessageID
    time: AnswerTime
    model: str
    provider: str
    mode: str
    agent: str
    path: _Path
    cost: float
    tokens: _Tokens
    error: _AnyError | UnsetType = UNSET
    summary: bool | UnsetType = UNSET
    variant: str | UnsetType = UNSET
    finish: str | UnsetType = UNSET


class _Part(msgspec.Struct, tag_field="type", rename={"session": "sessionID", "message": "messageID"}):
    id: _PartID
    session: _SessionID
    message: _MessageID


class _Start(msgspec.Struct):
    start: _Natural


class _Times(_Start):
    end: _Natural


class _Span(_Start):
    end: _Natural | UnsetType = UNSET


class _Text(_Part, tag="text"):
    text: str
    synthetic: bool | UnsetType = UNSET
    ignored: bool | UnsetType = UNSET
    time: _Span | UnsetType = UNSET
    metadata: _Values | UnsetType = UNSET


class _Reasoning(_Part, tag="reasoning"):
    text: str
    time: _Span
    metadata: _Values | UnsetType = UNSET


class _SourceText(msgspec.Struct):
    value: str
    start: float
    end: float


class _Source(msgspec.Struct, tag_field="type"):
    text: _SourceText


class _FileSource(_Source, tag="file"):
    path: str


class _SymbolSource(_Source, tag="symbol"):
    path: str
    range: _Values
    name: str
    kind: _Natural


class _ResourceSource(_Source, tag="resource", rename="camel"):
    client_name: str
    uri: str


class File(_Part, tag="file"):
    """A file in a message, or that a tool has returned."""

    mime: str
    url: str
    filename: str | UnsetType = UNSET
    source: _FileSource | _SymbolSource | _ResourceSource | UnsetType = UNSET


class _Completed(msgspec.Struct, tag_field="status", tag="completed"):
    input: _Values
    output: str
    title: str
    metadata: _Values
    time: _Times
    attachments: list[File] | UnsetType = UNSET


class _Failed(msgspec.Struct, tag_field="status", tag="error"):
    input: _Values
    error: str
    time: _Times
    metadata: _Values | UnsetType = UNSET


class _Running(msgspec.Struct, tag_field="status", tag="running"):
    input: _Values
    time: _Start
    title: str | UnsetType = UNSET
    metadata: _Values | UnsetType = UNSET


class _Pending(msgspec.Struct, tag_field="status", tag="pending"):
    input: _Values
    raw: str


class _Tool(_Part, tag="tool", rename={"session": "sessionID", "message": "messageID", "call": "callID"}):
    call: str
    tool: str
    state: _Completed | _Failed | _Running | _Pending
    metadata: _Values | UnsetType = UNSET


class _StepStart(_Part, tag="step-start"):
    snapshot: str | UnsetType = UNSET


class _StepFinish(_Part, tag="step-finish"):
    reason: str
    cost: float
    tokens: _Tokens
    snapshot: str | UnsetType = UNSET


class _Snapshot(_Part, tag="snapshot"):
    snapshot: str


class _Patch(_Part, tag="patch"):
    hash: str
    files: list[str]


class _AgentSource(msgspec.Struct):
    value: str
    start: _Natural
    end: _Natural


class _Agent(_Part, tag="agent"):
    name: str
    source: _AgentSource | UnsetType = UNSET


class _Compaction(_Part, tag="compaction", rename={"session": "sessionID", "message": "messageID"}):
    auto: bool
    overflow: bool | UnsetType = UNSET
    tail_start_id: _MessageID | UnsetType = UNSET


class _Subtask(_Part, tag="subtask"):
    prompt: str
    description: str
    agent: str
    model: Model | UnsetType = UNSET
    command: str | UnsetType = UNSET


class _Retry(_Part, tag="retry"):
    attempt: _Natural
    error: _ApiError
    time: _Created


PARTS: dict[str, type[msgspec.Struct]] = {
    "text": _Text,
    "reasoning": _Reasoning,
    "file": File,
    "tool": _Tool,
    "step-start": _StepStart,
    "step-finish": _StepFinish,
    "snapshot": _Snapshot,
    "patch": _Patch,
    "agent": _Agent,
    "compaction": _Compaction,
    "subtask": _Subtask,
    "retry": _Retry,
}
STATES: dict[str, type[msgspec.Struct]] = {
    "completed": _Completed,
    "error": _Failed,
    "running": _Running,
    "pending": _Pending,
}

decode_session = msgspec.json.Decoder(_Session).decode
decode_message = msgspec.json.Decoder(User | Assistant).decode
decode_error = msgspec.json.Decoder(_AnyError).decode
decode_part = msgspec.json.Decoder(
    _Text
    | _Reasoning
    | File
    | _Tool
    | _StepStart
    | _StepFinish
    | _Snapshot
    | _Patch
    | _Agent
    | _Compaction
    | _Subtask
    | _Retry
).decode
