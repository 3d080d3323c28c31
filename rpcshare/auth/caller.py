"""Who is asking."""

from enum import StrEnum

import msgspec

__all__ = ["ANONYMOUS", "Caller", "Scope"]


class Scope(StrEnum):
    """What a caller may do beyond holding a link or a share's secret."""

    CREATE = "create"
    """Make shares, and sync, list and delete one's own."""
    READ = "read"
    """Read the private shares of others."""
    ADMIN = "admin"
    """Everything."""


class Caller(msgspec.Struct, frozen=True):
    """Who a request came from, as far as its credential tells."""

    subject: str | None
    """The name under which shares are owned; None for a caller without a credential."""
    scopes: frozenset[Scope] = frozenset()
    address: str = ""
    """The peer's network address, for limits and the audit log; empty where there is none."""

    def has(self, scope: Scope) -> bool:
        """Whether the caller holds ``scope``, by itself or as an admin."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def owns(self, owner: str | None) -> bool:
        """Whether a share of ``owner`` is this caller's. What is anonymous belongs to nobody."""
        return owner is not None and owner == self.subject


ANONYMOUS = Caller(subject=None)
