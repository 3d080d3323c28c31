"""Who is asking."""

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.subject_sources import owner_name

__all__ = ["ANONYMOUS", "Caller", "CallerKey", "CallerUser", "DefaultVisibility", "Role", "Scope", "View"]

DefaultVisibility: TypeAlias = Literal["link", "private", "organization"]
"""Of a share, where its creator says none."""


class Scope(StrEnum):
    """What a caller may do beyond holding a link or a share's secret."""

    CREATE = "create"
    """Make shares, and sync, list and delete one's own."""
    READ = "read"
    """Read the private shares of others."""
    ADMIN = "admin"
    """Everything."""


class Role(StrEnum):
    """What a user is in an organization."""

    VIEWER = "viewer"
    """Reads what the organization shares."""
    MEMBER = "member"
    """Also makes shares."""
    ADMIN = "admin"
    """Of the organization: reads and manages all of its shares, keys and users."""
    SERVER_ADMIN = "server-admin"
    """Of this server: everything, in every organization."""

    @property
    def scopes(self) -> frozenset[Scope]:
        """What it allows without a key."""
        return _SCOPES_OF_ROLES[self]

    @property
    def manages_organization(self) -> bool:
        """Whether all of the organization is in its hands."""
        return self in (Role.ADMIN, Role.SERVER_ADMIN)


_SCOPES_OF_ROLES = {
    Role.VIEWER: frozenset[Scope](),
    Role.MEMBER: frozenset({Scope.CREATE}),
    Role.ADMIN: frozenset({Scope.CREATE, Scope.READ}),
    Role.SERVER_ADMIN: frozenset({Scope.ADMIN}),
}


class CallerUser(msgspec.Struct, frozen=True):
    """The user that a caller is, as of the time when the credential was verified."""

    id: str
    organization: str
    role: Role
    name: str = ""
    email: str = ""
    avatar_url: str = ""
    is_whole: bool = True
    """Whether the caller may do all that the user may, and not only what a key was given."""

    @property
    def manages_organization(self) -> bool:
        """Whether all of the organization is in the caller's hands."""
        return self.is_whole and self.role.manages_organization

    @property
    def may_have_keys(self) -> bool:
        """Whether the caller may make keys of its own: a key makes none, unless it may do everything."""
        return self.is_whole and self.role is not Role.VIEWER

    def described(self) -> dict[str, str]:
        """Return what callers are told, by name on the wire."""
        return {
            "id": self.id,
            "email": self.email,
            "name": self.name,
            "avatarURL": self.avatar_url,
            "organization": self.organization,
            "role": self.role.value,
        }


class CallerKey(msgspec.Struct, frozen=True):
    """The API key that a caller has shown."""

    id: str
    rate_limit: int = 0
    """Requests a minute; 0: as many as one likes."""


class View(msgspec.Struct, frozen=True):
    """The right to read one share, whatever its visibility: what a view token stands for."""

    share_id: str
    generation: str
    """Of the share: one that is made anew under the same id is another."""
    epoch: int | None
    """Of the share's access settings: a token made before they changed opens nothing. None is the view of
    who may write the share, which they do not end."""

    def opens(self, share_id: str, generation: str, epoch: int) -> bool:
        """Whether this is the right to read a share as it is now."""
        return (self.share_id, self.generation) == (share_id, generation) and self.epoch in (None, epoch)


class Caller(msgspec.Struct, frozen=True):
    """Who a request came from, as far as its credentials tell."""

    subject: str | None
    """The name that the credential gives; None for a caller who has shown no name."""
    scopes: frozenset[Scope] = frozenset()
    address: str = ""
    """The peer's network address, for limits and the audit log; empty where there is none."""
    views: frozenset[View] = frozenset()
    """Shares that were opened to this caller, by view tokens."""
    standing: CredentialValidity | None = None
    """Whether what the caller has shown still holds; None: for ever."""
    password: str | None = None
    """Of a share, shown with a request to read it; not yet verified."""
    source: str = ""
    """Where the subject comes from (:mod:`rpcshare.auth.subject_sources`): the same subject of another source
    is another caller."""
    aliases: tuple[str, ...] = ()
    """Other owners whose shares are this caller's: of united sources, and those that have no source."""

    default_visibility: DefaultVisibility | None = None
    """Of the shares that this caller makes, unless it says; None: the server's default."""
    user: CallerUser | None = None
    """The user whose credential it is; None: nobody's who has signed in."""
    key: CallerKey | None = None
    """The API key that it is; None: it is none."""

    def __repr__(self) -> str:
        """Leave out the password."""
        scopes = sorted(scope.value for scope in self.scopes)
        return f"Caller(subject={self.subject!r}, scopes={scopes}, address={self.address!r})"

    def has(self, scope: Scope) -> bool:
        """Whether the caller holds ``scope``, by itself or as an admin."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def organization(self) -> str | None:
        """The organization of the user; None for a caller who is none."""
        return None if self.user is None else self.user.organization

    def reaches(self, organization: str | None) -> bool:
        """Whether rights over the shares of others count within ``organization``; None: outside of any."""
        return Scope.ADMIN in self.scopes or self.organization == organization

    def owns(self, owner: str | None) -> bool:
        """Whether a share of ``owner`` is this caller's. What is anonymous belongs to nobody."""
        return owner is not None and owner in self.owners

    @property
    def owner(self) -> str | None:
        """The owner of the shares that this caller makes: source and subject; None without a subject."""
        return None if self.subject is None else owner_name(self.source, self.subject)

    @property
    def owners(self) -> tuple[str, ...]:
        """The owners whose shares are this caller's; the caller's own name is the first."""
        owner = self.owner
        return () if owner is None else (owner, *self.aliases)

    @property
    def is_anonymous(self) -> bool:
        """Whether the caller has shown nothing at all."""
        return self.subject is None and not self.views

    @property
    def has_lost_standing(self) -> bool:
        """Whether a credential of the caller's has expired or been revoked since it was shown."""
        return self.standing is not None and self.standing.is_over


ANONYMOUS = Caller(subject=None)
