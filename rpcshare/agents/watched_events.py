"""What those who watch an agent are told: events with a cursor, each made once for all who watch.

A cursor has two numbers, ``SYNCS.EVENTS``: of the share's last sync, and of the agent's last event. What
comes of the two in between is in no fixed order, and neither is repeated or left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import msgspec

from rpcshare import jsontext
from rpcshare.agents.agent import JSONObject
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.events import Deleted, Event, Snapshot, Sync

__all__ = ["AgentCursor", "OwnEvent", "with_cursor"]


class AgentCursor(msgspec.Struct, frozen=True):
    """How far somebody has watched."""

    syncs: int | None
    """None: nothing, so that a snapshot comes first."""
    events: int | None
    """None: nothing, so that the agent's status comes first."""

    def __str__(self) -> str:
        return f"{'' if self.syncs is None else self.syncs}.{'' if self.events is None else self.events}"

    @classmethod
    def parse(cls, text: object) -> AgentCursor:
        """Return the cursor that ``text`` is; None is where everything begins.

        Raises:
            ShareError: INVALID_ARGUMENT.
        """
        if text is None:
            return cls(None, None)
        syncs, point, events = text.partition(".") if isinstance(text, str) else ("", "", "")
        if not point or not all(
            each == "" or (each.isascii() and each.isdecimal() and len(each) <= 15)
            for each in (syncs, events)
        ):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "cursor: is none of an event of an agent")
        return cls(int(syncs) if syncs else None, int(events) if events else None)


class OwnEvent(Event, frozen=True, dict=True, weakref=True):
    """What has happened to an agent, beside what its transcript says."""

    type = "agent"
    cursor: str
    told: JSONObject
    """The event by the names of the wire."""

    @property
    def event_id(self) -> bytes:
        """By what a reader of Server-Sent Events resumes behind it."""
        return self.cursor.encode()

    @cached_property
    def json(self) -> bytes:
        """The event as JSON text."""
        return jsontext.encode(self.told)


class _AgentSnapshot(Snapshot, frozen=True, dict=True, weakref=True):
    cursor: str

    @property
    def event_id(self) -> bytes:
        return self.cursor.encode()

    @property
    def opening(self) -> bytes:
        return _spliced(super().opening, self.type, self.cursor)

    def text_in_parts(self) -> jsontext.InParts:
        return _with_member(super().text_in_parts(), self.cursor)


class _AgentSync(Sync, frozen=True, dict=True, weakref=True):
    cursor: str

    @property
    def event_id(self) -> bytes:
        return self.cursor.encode()

    @property
    def opening(self) -> bytes:
        return _spliced(super().opening, self.type, self.cursor)

    def text_in_parts(self) -> jsontext.InParts:
        return _with_member(super().text_in_parts(), self.cursor)


class _AgentDeleted(Deleted, frozen=True, dict=True, weakref=True):
    cursor: str

    @cached_property
    def json(self) -> bytes:
        return jsontext.encode({"type": self.type, "cursor": self.cursor, "shareID": self.share_id})


def with_cursor(event: Event, syncs: int | None, events: int | None) -> Event:
    """Return an event of a share as those who watch its agent get it, made once for each cursor.

    Args:
        event: a snapshot or a sync is the last that its cursor has.
        syncs: the last sync before any other event.
        events: the last event of the agent's own.
    """
    made: dict[int | None, Event] | None = event.__dict__.get("with_cursor")
    if made is None:
        made = event.__dict__["with_cursor"] = {}
    found = made.get(events)
    if found is None:
        syncs = event.sync_count if isinstance(event, Snapshot | Sync) else syncs
        found = made[events] = _made(event, str(AgentCursor(syncs, events)))
    return found


def _made(event: Event, cursor: str) -> Event:
    if isinstance(event, Deleted):
        return _AgentDeleted(event.share_id, cursor)
    made: Event
    if isinstance(event, Snapshot):
        made = _AgentSnapshot(event.share_id, event.sync_count, event.items, cursor)
    elif isinstance(event, Sync):
        made = _AgentSync(event.share_id, event.sync_count, event.items, cursor)
    else:
        return event
    made.__dict__["size"] = event.size
    if not event.is_large:
        made.__dict__["json"] = _spliced(event.json, event.type, cursor)
    return made


def _spliced(text: bytes, kind: str, cursor: str) -> bytes:
    """Return the text of an event with the cursor behind its type."""
    head = b'{"type":"%b",' % kind.encode()
    return b'%b"cursor":"%b",%b' % (head, cursor.encode(), text[len(head) :])


def _with_member(text: jsontext.InParts, cursor: str) -> jsontext.InParts:
    return {**text, "cursor": jsontext.encode(cursor)} if isinstance(text, Mapping) else text
