"""What the server answers, as the typed clients give it. The names on the wire are in ``rename``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "AccessSettings",
    "Identity",
    "SearchHit",
    "SearchPage",
    "SessionIndex",
    "SessionPage",
    "ShareCredentials",
    "ShareEvent",
    "SyncData",
    "ViewToken",
]

SyncData = dict[str, Any]
"""One item of a sync: ``{"type": "session" | "message" | "part" | "session_diff" | "model", "data": …}``."""


class ShareCredentials(msgspec.Struct, frozen=True):
    """What ``createShare`` gives to the caller that may write the share."""

    id: str
    url: str
    secret: str

    def __repr__(self) -> str:
        return f"ShareCredentials(id={self.id!r}, url={self.url!r}, secret=…)"


class AccessSettings(
    msgspec.Struct, frozen=True, rename={"has_password": "hasPassword", "expires_at": "expiresAt"}
):
    """Who may read a share, and until when."""

    visibility: Literal["link", "private", "organization"]
    has_password: bool
    expires_at: int | None
    """In milliseconds since the epoch; None: it does not expire."""


class ViewToken(msgspec.Struct, frozen=True, rename={"expires_at": "expiresAt"}):
    """A right to read one share, to be passed on: who has it shows it as its token."""

    token: str
    expires_at: int
    """In milliseconds since the epoch."""

    def __repr__(self) -> str:
        return f"ViewToken(token=…, expires_at={self.expires_at!r})"


class Refusal(msgspec.Struct, frozen=True):
    """Why the last sync of a share was not taken."""

    time: int
    """Milliseconds since the epoch."""
    code: str
    message: str


class SessionIndex(
    msgspec.Struct,
    frozen=True,
    rename={
        "session_id": "sessionID",
        "message_count": "messageCount",
        "part_count": "partCount",
        "diff_count": "diffCount",
        "model_count": "modelCount",
        "last_updated": "lastUpdated",
        "sync_count": "syncCount",
        "created_at": "createdAt",
        "last_refusal": "lastRefusal",
    },
    omit_defaults=True,
):
    """What a listing tells of a share. Times are milliseconds since the epoch."""

    id: str
    session_id: str
    title: str
    directory: str
    message_count: int
    part_count: int
    diff_count: int
    model_count: int
    last_updated: int
    sync_count: int
    created_at: int
    last_refusal: Refusal | None = None
    """Of a sync, if none has been taken since."""


class SessionPage(msgspec.Struct, frozen=True):
    """Some of the shares that a query found, newest first."""

    sessions: list[SessionIndex]
    count: int
    """Of all that the query found, on this page or not."""
    cursor: str | None = None
    """Where the next page begins; None on the last."""


class SearchHit(
    msgspec.Struct,
    frozen=True,
    rename={"share_id": "shareID", "message_id": "messageID", "part_id": "partID"},
):
    """One place in a share that has what was looked for."""

    share_id: str
    title: str
    """Of the share."""
    snippet: str
    """Some of the text around it."""
    time: int
    """Of the message, in milliseconds since the epoch."""
    message_id: str | None = None
    part_id: str | None = None


class SearchPage(msgspec.Struct, frozen=True):
    """Some of the hits of a search, the best first."""

    hits: list[SearchHit]
    cursor: str | None = None
    """Where the next page begins; None on the last."""
    indexing: bool = False
    """The server has not indexed all shares yet, so there may be more."""


class Identity(msgspec.Struct, frozen=True):
    """Who the server takes the caller for."""

    subject: str | None
    scopes: list[str]
    user: dict[str, str] | None = None
    """``id``, ``email``, ``name``, ``avatarURL``, ``organization`` and ``role`` of whoever is a user."""
    usage: dict[str, dict[str, dict[str, int | None]]] | None = None
    """Of a ``user`` and the ``organization``: of ``storage`` (bytes), ``shares`` and ``requests`` (in the
    minute that is under way) what is ``used``, and the ``limit``, which is None where there is none."""


class ShareEvent(msgspec.Struct, frozen=True, rename={"share_id": "shareID", "sync_count": "syncCount"}):
    """Something that happened to a share that is being watched."""

    type: Literal["snapshot", "sync", "deleted"]
    share_id: str
    sync_count: int | None = None
    """Of the share after the event; None once it is deleted."""
    data: list[SyncData] = []
    """The whole share (``snapshot``), or what the sync brought."""
