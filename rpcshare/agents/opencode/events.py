"""What opencode tells while it runs, read from ``/global/event`` and ``/sync/history``.

Most of what it tells comes twice: as an event of its bus, and as a *sync event* with a sequence number for
each session.
Those are kept, so that what was missed can be asked for.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

__all__ = ["LOST", "OpencodeEvent", "SyncItem", "read_event", "sync_items"]

JSONObject: TypeAlias = dict[str, Any]

LOST = "stream.lost"
"""The type of an event of our own: the stream was cut, and something may have been missed."""

_LARGEST_SEQ = 2**53 - 1
"""What a JavaScript program counts to, and more than a database's column is to be given."""

_ITEMS = {
    "session.created": ("session", "info"),
    "session.updated": ("session", "info"),
    "message.updated": ("message", "info"),
    "message.part.updated": ("part", "part"),
}


class OpencodeEvent(msgspec.Struct, frozen=True):
    """One event."""

    type: str
    """As opencode calls it, without the version that a sync event has at its end."""
    session: str
    """The session's ID; empty for what is of none."""
    data: JSONObject
    seq: int | None = None
    """Of a sync event."""
    size: int = 0
    """Bytes of the line that it was, if it came as one."""


class SyncItem(msgspec.Struct, frozen=True):
    """What a share is told: an item of SyncData, and by what it is known."""

    kind: str
    key: str
    data: JSONObject | list[Any]


class _Payload(msgspec.Struct):
    type: str = ""
    properties: JSONObject = {}
    syncEvent: JSONObject | None = None  # noqa: N815 -- opencode's name
    seq: int | None = None
    aggregateID: str = ""  # noqa: N815 -- the same
    data: JSONObject = {}


class _Envelope(msgspec.Struct):
    payload: _Payload | None = None


_envelope = msgspec.json.Decoder(_Envelope).decode


def read_event(text: bytes) -> OpencodeEvent | None:
    """Return the event that a line of the stream is; None: it is none that anybody here needs.

    Raises:
        ValueError: it is no event at all.
    """
    payload = _envelope(text).payload
    if payload is None:
        return None
    if payload.type == "sync":
        inner = payload.syncEvent
        return sync_event(inner if inner is not None else msgspec.to_builtins(payload))
    if not payload.type:
        return None
    session = payload.properties.get("sessionID")
    return OpencodeEvent(payload.type, session if isinstance(session, str) else "", payload.properties)


def sync_event(given: JSONObject) -> OpencodeEvent | None:
    """Return a sync event, of the stream or of the history."""
    session = given.get("aggregateID") or given.get("aggregate_id")
    kind, seq, data = given.get("type"), given.get("seq"), given.get("data")
    if not isinstance(session, str) or not isinstance(kind, str) or type(seq) is not int:
        return None
    if not 0 <= seq <= _LARGEST_SEQ:
        return None
    name, _, version = kind.rpartition(".")
    return OpencodeEvent(
        name if version.isdecimal() else kind, session, data if isinstance(data, dict) else {}, seq
    )


def sync_items(event: OpencodeEvent) -> list[SyncItem]:
    """Return what a share is told of an event."""
    if event.type == "session.diff":
        diff = event.data.get("diff")
        return [SyncItem("session_diff", "", diff)] if isinstance(diff, list) else []
    kind, member = _ITEMS.get(event.type, ("", ""))
    value = event.data.get(member) if kind else None
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return []
    return [SyncItem(kind, "" if kind == "session" else value["id"], value)]
