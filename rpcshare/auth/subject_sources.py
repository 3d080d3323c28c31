"""Where a subject comes from: one name shown in two ways is two owners.

An API key ``ci``, a token whose ``sub`` is ``ci`` and a certificate for ``ci`` have nothing to do with each
other, as nobody compares the names before handing them out. ``sub`` itself is unique only within its issuer
(OpenID Connect Core 1.0, section 5.7). So the store names an owner by source and subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a caller has an owner's name, which is made here
    from rpcshare.auth.caller import Caller
    from rpcshare.auth.unprefixed_owners import UnprefixedOwners

__all__ = [
    "NAMED_SOURCES",
    "Source",
    "SubjectSources",
    "is_source",
    "jwt_source",
    "organization_of",
    "owner_name",
    "user_of",
    "user_source",
]

# No subject has it: those are printable. So no owner without a source reads like one that has one.
_SEPARATOR = "\x1f"


class Source(StrEnum):
    """The ways to show a name."""

    ADMIN = "admin"
    """The admin token."""
    KEY = "key"
    """API keys."""
    TOKEN = "token"  # noqa: S105 -- a source's name
    """Tokens that the server has signed itself."""
    JWT = "jwt"
    """Tokens of another issuer; the source of a caller has that issuer's name in it."""
    CERTIFICATE = "certificate"
    """Client certificates."""
    PROXY = "proxy"
    """The header of a trusted proxy."""
    USER = "user"
    """Users; the source of a caller has the organization's name in it, so that what is owned stays in it."""


NAMED_SOURCES = (Source.KEY, Source.TOKEN, Source.CERTIFICATE, Source.PROXY)
"""Those that are named by themselves."""


def jwt_source(issuer: str) -> str:
    """Return the source of the subjects of ``issuer``, a claim ``iss``."""
    return f"{Source.JWT}:{issuer}"


def user_source(organization: str) -> str:
    """Return the source of the users of ``organization``."""
    return f"{Source.USER}:{organization}"


def organization_of(owner: str | None) -> str | None:
    """Return the organization whose user ``owner`` is; None: it is nobody's user."""
    source, separator, _ = (owner or "").partition(_SEPARATOR)
    kind, _, organization = source.partition(":")
    return organization if separator and kind == Source.USER and organization else None


def user_of(owner: str | None) -> str | None:
    """Return the id of the user that ``owner`` is; None: it is nobody's who signs in."""
    return (owner or "").partition(_SEPARATOR)[2] if organization_of(owner) is not None else None


def is_source(name: str) -> bool:
    """Whether ``name`` is what settings call a source: one of those above but admin, or ``jwt:ISSUER``."""
    return name in (*NAMED_SOURCES, Source.JWT) or name.startswith(f"{Source.JWT}:")


def owner_name(source: str, subject: str) -> str:
    """Return what the store calls an owner; the subject alone, where it has no source."""
    return f"{source}{_SEPARATOR}{subject}" if source else subject


class SubjectSources:
    """Which owners' shares are a caller's, beside those under the caller's own name."""

    def __init__(self, united: Sequence[str] = (), unprefixed: UnprefixedOwners | None = None) -> None:
        """Take the sources whose subjects are the same people, and whose the owners without a source are."""
        self._united = tuple(united)
        self._unprefixed = unprefixed

    def aliases(self, caller: Caller) -> tuple[str, ...]:
        """Return the other owners that ``caller`` is."""
        subject, own = caller.subject, caller.source
        if subject is None or not own:
            return ()
        sources = (
            [own, *(source for source in self._united if source != own)] if own in self._united else [own]
        )
        found = [owner_name(source, subject) for source in sources[1:]]
        if self._unprefixed is not None and any(
            self._unprefixed.are_of(source, subject) for source in sources
        ):
            found.append(subject)
        return tuple(found)
