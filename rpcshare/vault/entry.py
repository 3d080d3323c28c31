"""What is kept in the vault, and what callers say of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, NamedTuple
from urllib.parse import quote

import msgspec

from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError

__all__ = [
    "MAX_VALUE",
    "NewEntry",
    "OwnerKind",
    "VaultEntry",
    "VaultOwner",
    "checked_value",
    "organization_of",
    "owner_of",
    "parse_new_entry",
    "unknown_entry",
]

MAX_VALUE = 64 * 1024
"""Bytes of UTF-8 of a value: the longest keys are certificates with their chains."""

_MAX_LISTED = 100
_LONGEST = 200  # characters of a name, a service, a scope, a grant
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GRANT = re.compile(r"(workspace|integration):[A-Za-z0-9._-]{1,128}")


class OwnerKind(StrEnum):
    """Whose an entry can be."""

    USER = "user"
    ORGANIZATION = "organization"
    SUBJECT = "subject"
    """Of a key or token that belongs to no user."""


class VaultOwner(NamedTuple):
    """Whose an entry is."""

    kind: OwnerKind
    id: str

    @property
    def text(self) -> str:
        """As it is kept: no name of one kind is that of another. PostgreSQL keeps no NUL, as owners have."""
        return f"{self.kind}:{quote(self.id, safe=':@ ')}"


def owner_of(caller: Caller) -> VaultOwner | None:
    """Return whose the entries are that a caller makes; None for a caller without a name."""
    if caller.user is not None:
        return VaultOwner(OwnerKind.USER, caller.user.id)
    return None if caller.owner is None else VaultOwner(OwnerKind.SUBJECT, caller.owner)


def organization_of(caller: Caller) -> VaultOwner | None:
    """Return a caller's organization as an owner; None for a caller who is in none."""
    organization = caller.organization
    return None if organization is None else VaultOwner(OwnerKind.ORGANIZATION, organization)


class NewEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What ``store`` takes. Made by :func:`parse_new_entry`, which checks it."""

    service: str
    name: str
    value: str
    owner: Literal["user", "organization"] = "user"
    scopes: list[str] | None = None
    """What the key is good for at the third party, for people."""
    grants: list[str] | None = None
    """The workspaces and integrations that may use it; None: all of its owner's."""
    expires_at: int | str | None = None
    """Milliseconds since the epoch, or a time as ISO 8601 has it."""

    def __repr__(self) -> str:
        """Leave out the value."""
        return f"NewEntry(service={self.service!r}, name={self.name!r})"


class VaultEntry(msgspec.Struct, frozen=True):
    """What is known of an entry without its value. Times are milliseconds since the epoch."""

    id: str
    owner: str
    service: str
    name: str
    scopes: list[str]
    grants: list[str] | None
    version: int
    """How often the value was changed, from 1."""
    created_at: int
    rotated_at: int | None
    expires_at: int | None
    used_at: int | None

    def is_over(self, now: int) -> bool:
        """Whether it has expired."""
        return self.expires_at is not None and self.expires_at <= now

    def is_granted(self, purpose: str) -> bool:
        """Whether a workspace or integration may use it, named as in a grant."""
        return self.grants is None or purpose in self.grants

    @property
    def is_of_organization(self) -> bool:
        """Whether it belongs to all of an organization, and not to one user or subject."""
        return self.owner.startswith(f"{OwnerKind.ORGANIZATION}:")

    def described(self) -> dict[str, object]:
        """Return it by the names of the wire."""
        return {
            "id": self.id,
            "owner": "organization" if self.is_of_organization else "user",
            "service": self.service,
            "name": self.name,
            "scopes": self.scopes,
            **({} if self.grants is None else {"grants": self.grants}),
            "createdAt": self.created_at,
            "rotatedAt": self.rotated_at,
            "expiresAt": self.expires_at,
            "usedAt": self.used_at,
        }


def parse_new_entry(given: object, now: int) -> tuple[NewEntry, int | None]:
    """Return what ``store`` was given, and when it ends in milliseconds since the epoch.

    Raises:
        ShareError: INVALID_ARGUMENT; the value is never in the message.
    """
    if not isinstance(given, dict):
        raise _wrong("expected {service, name, value}")
    names = [field.encode_name for field in msgspec.structs.fields(NewEntry)]
    if not set(given) <= set(names):  # not by its name: that may be a key in the wrong place
        raise _wrong(f"there is a field that is none of {', '.join(names)}")
    try:
        entry = msgspec.convert(given, NewEntry)
    except msgspec.ValidationError as exc:
        raise _wrong(str(exc)) from None
    if not _SERVICE.fullmatch(entry.service):
        raise _wrong("service: 1 to 64 letters, digits, dots, dashes and underscores")
    _require_name("name", entry.name)
    checked_value(entry.value)
    for field, listed in (("scopes", entry.scopes or ()), ("grants", entry.grants or ())):
        if len(listed) > _MAX_LISTED:
            raise _wrong(f"{field}: at most {_MAX_LISTED}")
    for scope in entry.scopes or ():
        _require_name("scopes", scope)
    for grant in entry.grants or ():
        if not _GRANT.fullmatch(grant):
            raise _wrong("grants: each is workspace:ID or integration:ID")
    return entry, _end(entry.expires_at, now)


def checked_value(value: object) -> str:
    """Return a value that can be kept.

    Raises:
        ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
    """
    if not isinstance(value, str) or not value:
        raise _wrong("value: expected a string that is not empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _wrong("value: half of a surrogate pair is in it") from None
    if size > MAX_VALUE:
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, f"value: is longer than {MAX_VALUE:,} bytes")
    return value


def unknown_entry() -> ShareError:
    """Return the error for an id of no entry, or of none that is the caller's: they cannot be told apart."""
    return ShareError(ErrorCode.INVALID_ARGUMENT, "id: there is no such entry in the vault")


def _end(expires_at: int | str | None, now: int) -> int | None:
    if expires_at is None:
        return None
    if isinstance(expires_at, str):
        try:
            end = datetime.fromisoformat(expires_at)
        except ValueError:
            raise _wrong("expiresAt: expected milliseconds, or a time such as 2027-01-31T12:00:00Z") from None
        expires_at = int((end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp() * 1000)
    if not now < expires_at < 2**53:
        raise _wrong("expiresAt: is not in the future")
    return expires_at


def _require_name(field: str, text: str) -> None:
    if not 0 < len(text) <= _LONGEST or not text.isprintable() or text != text.strip():
        raise _wrong(f"{field}: 1 to {_LONGEST} printable characters, without spaces around them")


def _wrong(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
