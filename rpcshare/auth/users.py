"""What is known of users, without the database that keeps it."""

from __future__ import annotations

import unicodedata
from enum import StrEnum

import msgspec

from rpcshare.auth.caller import CallerUser, Role
from rpcshare.auth.subjects import fault_of_name
from rpcshare.errors import ErrorCode, ShareError

__all__ = [
    "SESSION_PREFIX",
    "BrowserSession",
    "Identity",
    "RoleFrom",
    "SignIn",
    "User",
    "fault_of_claimed_organization",
    "fault_of_organization",
    "unknown_user",
]

_LIKE_LATIN = frozenset({"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU"})

SESSION_PREFIX = "rss_"
"""What the secret of a browser's session begins with."""


class RoleFrom(StrEnum):
    """Who chose a user's role."""

    DEFAULT = "default"
    PROVIDER = "provider"
    """By a role map, at each sign-in."""
    ADMIN = "admin"


class User(msgspec.Struct, frozen=True):
    """A user. Times are milliseconds since the epoch."""

    id: str
    organization: str
    role: Role
    role_from: RoleFrom
    email: str
    email_is_trusted: bool
    """Whether a trusted provider has verified the address."""
    name: str
    avatar_url: str
    created_at: int
    seen_at: int
    disabled_at: int | None = None

    @property
    def caller_user(self) -> CallerUser:
        """What a caller is told to be."""
        return CallerUser(self.id, self.organization, self.role, self.name, self.email, self.avatar_url)

    def described(self) -> dict[str, object]:
        """Return what an admin may see, by the names of the wire."""
        return {
            **self.caller_user.described(),
            "createdAt": self.created_at,
            "seenAt": self.seen_at,
            "disabledAt": self.disabled_at,
        }


class Identity(msgspec.Struct, frozen=True):
    """Who a user is to a provider."""

    issuer: str
    subject: str
    provider: str
    email: str
    created_at: int
    used_at: int


class BrowserSession(msgspec.Struct, frozen=True):
    """A browser that is signed in."""

    id: str
    user_id: str
    provider: str
    address: str
    agent: str
    created_at: int
    expires_at: int


class SignIn(msgspec.Struct, frozen=True):
    """What a provider has said of who signs in, verified, and what the settings make of it."""

    issuer: str
    subject: str
    provider: str
    organization: str
    """Empty: one of the user's own."""
    role: Role | None
    """By the role map; None: it says nothing."""
    default_role: Role
    email: str = ""
    email_is_trusted: bool = False
    """Whether the provider is trusted and has verified the address: then it may link to a user."""
    name: str = ""
    avatar_url: str = ""


def fault_of_organization(name: str) -> str | None:
    """Return what is wrong with naming an organization so, or None if nothing is."""
    return fault_of_name(name)


def fault_of_claimed_organization(name: str) -> str | None:
    """Return why no organization is made of what a claim calls one, or None if one is.

    Names are compared as they are: to fold case or forms would make one organization of two that a provider
    tells apart. So a name that only looks like another is refused where it can be told: in another form of
    Unicode than NFKC, or with letters of Latin among those of a script that has the same shapes (UTS #39,
    section 5.2).
    """
    if fault := fault_of_organization(name):
        return fault
    if unicodedata.normalize("NFKC", name) != name:
        return "must be in the form NFKC of Unicode"
    scripts = {unicodedata.name(each, "").partition(" ")[0] for each in name if each.isalpha()}
    if "LATIN" in scripts and scripts & _LIKE_LATIN:
        return "must not mix letters of Latin with those of scripts that look alike"
    return None


def unknown_user() -> ShareError:
    """Return the error for an id that no user has, or none whom the caller may see."""
    return ShareError(ErrorCode.INVALID_ARGUMENT, "id: there is no such user")
