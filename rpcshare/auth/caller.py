"""Who is asking."""

from enum import StrEnum

import msgspec

from rpcshare.auth.standing import Standing

__all__ = ["ANONYMOUS", "Caller", "Scope", "View"]


class Scope(StrEnum):
    """What a caller may do beyond holding a link or a share's secret."""

    CREATE = "create"
    """Make shares, and sync, list and delete one's own."""
    READ = "read"
    """Read the private shares of others."""
    ADMIN = "admin"
    """Everything."""


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
    """The name under which shares are owned; None for a caller who has shown no name."""
    scopes: frozenset[Scope] = frozenset()
    address: str = ""
    """The peer's network address, for limits and the audit log; empty where there is none."""
    views: frozenset[View] = frozenset()
    """Shares that were opened to this caller, by view tokens."""
    standing: Standing | None = None
    """Whether what the caller has shown still holds; None: for ever."""
    password: str | None = None
    """Of a share, shown with a request to read it; not yet verified."""

    def __repr__(self) -> str:
        """Leave out the password."""
        scopes = sorted(scope.value for scope in self.scopes)
        return f"Caller(subject={self.subject!r}, scopes={scopes}, address={self.address!r})"

    def has(self, scope: Scope) -> bool:
        """Whether the caller holds ``scope``, by itself or as an admin."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def owns(self, owner: str | None) -> bool:
        """Whether a share of ``owner`` is this caller's. What is anonymous belongs to nobody."""
        return owner is not None and owner == self.subject

    @property
    def is_anonymous(self) -> bool:
        """Whether the caller has shown nothing at all."""
        return self.subject is None and not self.views

    @property
    def has_lost_standing(self) -> bool:
        """Whether a credential of the caller's has expired or been revoked since it was shown."""
        return self.standing is not None and self.standing.is_over


ANONYMOUS = Caller(subject=None)
