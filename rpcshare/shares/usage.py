"""How many shares somebody has, and how large they are."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from rpcshare.auth.allowances import Allowance

__all__ = ["Measured", "OwnedSize", "OwnerUsage", "Usage"]


class Usage(NamedTuple):
    """What some shares take."""

    shares: int = 0
    storage: int = 0
    """Bytes of what they hold now: messages, parts, diffs and models as JSON."""


class OwnerUsage(NamedTuple):
    """What the shares of a user take, and those of the organization."""

    user: Usage
    organization: Usage


class OwnedSize(NamedTuple):
    """Whose a share is, and how large."""

    owner: str | None
    size: int


class Measured(msgspec.Struct, frozen=True):
    """What somebody has, and may have."""

    used: Usage
    requests: int
    """In the minute that is under way, on this server; they are counted where there is a limit."""
    allowed: Allowance

    def described(self) -> dict[str, dict[str, int | None]]:
        """Return it by the names of the wire; a limit that is None is none."""
        used = {"storage": self.used.storage, "shares": self.used.shares, "requests": self.requests}
        limits = self.allowed.described()
        return {name: {"used": number, "limit": limits[name]} for name, number in used.items()}
