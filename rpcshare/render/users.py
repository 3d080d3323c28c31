"""Users, and where they are signed in, as pages show them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from rpcshare.auth.audit import RecordedEvent
from rpcshare.auth.caller import CallerUser, Role
from rpcshare.auth.users import BrowserSession, Identity, User
from rpcshare.render import figures
from rpcshare.render.lenient_json import Fields
from rpcshare.shares.usage import Measured

__all__ = ["view_of_browser", "view_of_event", "view_of_identity", "view_of_member", "views_of_limits"]

_BROWSERS = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrom", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = ("iPhone", "iPad", "Android", "Windows", "Mac OS X", "Linux")


class IdentityView(msgspec.Struct, frozen=True):
    """A way to sign in."""

    provider: str
    email: str
    created: str
    used: str


class BrowserView(msgspec.Struct, frozen=True):
    """A browser that is signed in."""

    id: str
    agent: str
    address: str
    created: str
    expires: str
    is_own: bool


class MemberView(msgspec.Struct, frozen=True):
    """A user of an organization."""

    id: str
    name: str
    email: str
    role: str
    seen: str
    is_disabled: bool
    may_change: bool


class LimitView(msgspec.Struct, frozen=True):
    """Something of which there is only so much."""

    name: str
    used: str
    limit: str
    is_reached: bool


class EventView(msgspec.Struct, frozen=True):
    """What was done in an organization."""

    time: str
    what: str
    outcome: str
    who: str
    address: str
    details: str


def views_of_limits(measured: Measured) -> list[LimitView]:
    """Return what is shown of what somebody has, and may have."""
    rows = (
        ("Storage", measured.used.storage, measured.allowed.storage, figures.size),
        ("Shares", measured.used.shares, measured.allowed.shares, figures.count),
        ("Requests in this minute", measured.requests, measured.allowed.requests, figures.count),
    )
    return [
        LimitView(name, shown(max(used, 0)), shown(limit) if limit else "none", 0 < limit <= used)
        for name, used, limit, shown in rows
        if limit or name != "Requests in this minute"  # which are counted where there is a limit
    ]


def view_of_event(recorded: RecordedEvent, names: Mapping[str, str]) -> EventView:
    """Return what is shown of an event; users are called by their ``names``, where these are known."""
    event = recorded.event
    details = ", ".join(f"{name} {value}" for name, value in event.details.items())
    return EventView(
        figures.moment(event.at),
        event.action.value,
        event.outcome,
        _line(names.get(event.subject) or event.subject),
        _line(event.address),
        _line(details),
    )


def view_of_identity(identity: Identity) -> IdentityView:
    """Return what is shown of an identity."""
    return IdentityView(
        _line(identity.provider),
        _line(identity.email),
        figures.moment(identity.created_at),
        figures.moment(identity.used_at),
    )


def view_of_browser(session: BrowserSession, *, is_own: bool) -> BrowserView:
    """Return what is shown of a session."""
    return BrowserView(
        session.id,
        _browser(session.agent),
        _line(session.address),
        figures.moment(session.created_at),
        figures.moment(session.expires_at),
        is_own,
    )


def view_of_member(user: User, viewer: CallerUser, roles: tuple[Role, ...]) -> MemberView:
    """Return what ``viewer``, who may give ``roles``, is shown of a user."""
    return MemberView(
        user.id,
        _line(user.name or user.email or user.id),
        _line(user.email),
        user.role.value,
        figures.moment(user.seen_at),
        is_disabled=user.disabled_at is not None,
        may_change=user.role in roles and user.id != viewer.id,
    )


def _browser(agent: str) -> str:
    """Return what a browser is called: what it says of itself has the names of others in it."""
    name = next((name for mark, name in _BROWSERS if mark in agent), "")
    system = next((each for each in _SYSTEMS if each in agent), "")
    if name:
        return f"{name} on {system}" if system else name
    return _line(re.split(r"[ (/]", agent)[0]) or "unknown"


def _line(text: str) -> str:
    return Fields({"text": text}).line("text", limit=200)
