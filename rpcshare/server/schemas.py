"""The shapes of the JSON that the HTTP API takes and gives, for its document (PROTOCOL.md, "Data")."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from rpcshare.durations import DURATION_PATTERN, MAX_DURATION
from rpcshare.shares.objects import Visibility
from rpcshare.shares.page import Page
from rpcshare.shares.state import SessionIndex

__all__ = [
    "AgentSession",
    "CreateBody",
    "Created",
    "DeleteBody",
    "Error",
    "Event",
    "FileContent",
    "Health",
    "NewVaultEntry",
    "NewWorkspaceBody",
    "Page",
    "RemovedWorkspace",
    "RetrievedVaultEntry",
    "RotateBody",
    "SessionIndex",
    "Stored",
    "Success",
    "SyncBody",
    "SyncData",
    "Synced",
    "UnlockBody",
    "UpdateBody",
    "VaultEntry",
    "ViewTokenBody",
    "WorkspaceInfo",
]

Count = Annotated[int, msgspec.Meta(ge=0)]
Duration = (
    Annotated[float, msgspec.Meta(gt=0, le=MAX_DURATION, description="seconds")]
    | Annotated[str, msgspec.Meta(pattern=f"^{DURATION_PATTERN}$", description="such as 30d")]
)
Password = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Identified(msgspec.Struct):
    """A message, a part or a model: what is in it beside its id is the client's."""

    id: Annotated[str, msgspec.Meta(min_length=1)]


class SessionItem(msgspec.Struct, tag_field="type", tag="session"):
    """The session, which replaces the one before."""

    data: dict[str, Any]


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """A message: new, or in the place of the one with its id."""

    data: Identified


class PartItem(msgspec.Struct, tag_field="type", tag="part"):
    """A part, likewise."""

    data: Identified


class DiffItem(msgspec.Struct, tag_field="type", tag="session_diff"):
    """Diffs, which are added."""

    data: list[Any]


class ModelItem(msgspec.Struct, tag_field="type", tag="model"):
    """Models, each in the place of the one with its id and provider."""

    data: list[Identified]


SyncData = SessionItem | MessageItem | PartItem | DiffItem | ModelItem


class CreateBody(msgspec.Struct):
    """What makes a share."""

    session_id: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,256}$")] = msgspec.field(
        name="sessionID"
    )
    data: list[SyncData] | None = None
    visibility: Visibility = Visibility.LINK
    expires_in: Duration | None = msgspec.field(name="expiresIn", default=None)
    password: Password | None = None
    secret: Annotated[
        str | None,
        msgspec.Meta(description="of a share of the session that belongs to nobody: it is adopted"),
    ] = None


class UpdateBody(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Who may read a share, and until when: what is left out stays as it is; null takes it away."""

    secret: str | None = None
    visibility: Visibility = Visibility.LINK
    expires_in: Duration | None = None
    password: Password | None = None


class ViewTokenBody(msgspec.Struct, rename="camel"):
    """How long a view token lasts."""

    secret: str | None = None
    expires_in: Duration | None = None


class UnlockBody(msgspec.Struct):
    """The password of a share."""

    password: Password


class Created(msgspec.Struct):
    """The credentials of a share."""

    id: str
    url: str
    secret: str


class SyncBody(msgspec.Struct):
    """A batch for a share; without a secret as its owner, or as an admin."""

    data: list[SyncData]
    secret: str | None = None


class Synced(msgspec.Struct, rename="camel"):
    """The batch is durable."""

    success: bool
    sync_count: Count


class DeleteBody(msgspec.Struct):
    """What takes a share down; none is needed as its owner, or as an admin."""

    secret: str | None = None


class Success(msgspec.Struct):
    """It is done."""

    success: bool


class NewVaultEntry(msgspec.Struct, rename="camel"):
    """A key of a third party."""

    service: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    value: Annotated[str, msgspec.Meta(min_length=1)]
    owner: Literal["user", "organization"] = "user"
    scopes: list[str] | None = None
    grants: list[str] | None = None
    expires_at: int | str | None = None
    """Milliseconds since the epoch, or a time as ISO 8601 has it."""


class Stored(msgspec.Struct):
    """What is known of a key that was stored."""

    id: str


class RotateBody(msgspec.Struct):
    """The new value."""

    value: Annotated[str, msgspec.Meta(min_length=1)]


class VaultEntry(msgspec.Struct, rename="camel"):
    """What is known of a key in the vault. Times are milliseconds since the epoch."""

    id: str
    owner: Literal["user", "organization"]
    service: str
    name: str
    scopes: list[str]
    created_at: int
    rotated_at: int | None
    expires_at: int | None
    used_at: int | None
    grants: list[str] | msgspec.UnsetType = msgspec.UNSET


class RetrievedVaultEntry(VaultEntry, kw_only=True):
    """A key with its value."""

    value: str


class GitSourceBody(msgspec.Struct):
    """A repository to begin with."""

    git: str
    """``https://…``, ``ssh://…`` or ``USER@HOST:PATH``."""
    ref: str | None = None
    key: str | None = None
    """Of the vault, by id or name; without one, that for the URL's host."""


class MountBody(msgspec.Struct):
    """Another workspace, which is seen read-only."""

    name: str
    workspace: str
    readonly: Literal[True] = True


class ResourcesBody(msgspec.Struct):
    """What a workspace's agents may use."""

    memory: int | str | None = None
    cpu: float | str | None = None
    disk: int | str | None = None
    timeout: float | str | None = None


class NewWorkspaceBody(msgspec.Struct):
    """A workspace."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    source: GitSourceBody | None = None
    mounts: list[MountBody] | None = None
    resources: ResourcesBody | None = None
    hosts: list[str] | None = None


class WorkspaceSource(msgspec.Struct):
    """The repository that a workspace began with."""

    git: str
    ref: str | None


class WorkspaceResources(msgspec.Struct):
    """Limits in bytes, processors and seconds."""

    memory: int
    cpu: float
    disk: int
    timeout: float | None


class WorkspaceInfo(msgspec.Struct, rename="camel"):
    """What is known of a workspace. Times are milliseconds since the epoch, sizes are bytes."""

    id: str
    name: str
    status: Literal["creating", "ready", "removing"]
    source: WorkspaceSource | None
    mounts: list[MountBody]
    resources: WorkspaceResources
    hosts: list[str]
    created_at: int
    updated_at: int
    disk_used: int
    measured_at: int | None


class RemovedWorkspace(msgspec.Struct):
    """It is gone; ``snapshot`` is the name of its archive."""

    success: bool
    snapshot: str | None


class FileContent(msgspec.Struct, rename="camel"):
    """A file."""

    content: str
    encoding: Literal["utf-8", "base64"]
    mime_type: str
    size: int
    last_modified: int


class ShareMetadata(msgspec.Struct, rename="camel"):
    """What is known of a share beside its content. Times are milliseconds since the epoch."""

    created_at: int
    last_updated: int
    sync_count: Count
    session_id: str = msgspec.field(name="sessionID")


class AgentSession(msgspec.Struct):
    """The whole of a share."""

    session: dict[str, Any]
    messages: list[Identified]
    parts: list[Identified]
    diffs: list[Any]
    models: list[Identified]
    metadata: ShareMetadata


class SnapshotEvent(msgspec.Struct, tag_field="type", tag="snapshot", rename="camel"):
    """All that the share holds. It replaces what came before."""

    sync_count: Count
    data: list[SyncData]
    share_id: str = msgspec.field(name="shareID")


class SyncEvent(msgspec.Struct, tag_field="type", tag="sync", rename="camel"):
    """What has come since the event before."""

    sync_count: Count
    data: list[SyncData]
    share_id: str = msgspec.field(name="shareID")


class DeletedEvent(msgspec.Struct, tag_field="type", tag="deleted"):
    """The share is gone. The last event."""

    share_id: str = msgspec.field(name="shareID")


class RefusedEvent(msgspec.Struct, tag_field="type", tag="error"):
    """The share may not be read any longer. The last event."""

    code: str
    message: str
    share_id: str = msgspec.field(name="shareID")


Event = SnapshotEvent | SyncEvent | DeletedEvent | RefusedEvent


class Health(msgspec.Struct):
    """All is well."""

    status: str


class Error(msgspec.Struct):
    """What went wrong: for people, and for programs."""

    error: str
    code: str
