"""How much users, and organizations, may have and do: as the settings have it, or as an admin has chosen.

What is used is known elsewhere: requests by :mod:`rpcshare.auth.request_rates`, shares and their bytes by
:mod:`rpcshare.shares.quotas`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from rpcshare.errors import ErrorCode, ShareError

__all__ = [
    "MAX_ALLOWED",
    "Allowance",
    "Allowances",
    "ChosenAllowance",
    "checked_choice",
    "organization_key",
    "user_key",
]

MAX_ALLOWED = 2**53
"""The largest number that JavaScript has exactly."""


class Allowance(NamedTuple):
    """What may be had. 0: as much as one likes."""

    storage: int = 0
    """Bytes of all shares."""
    shares: int = 0
    requests: int = 0
    """A minute."""

    def described(self) -> dict[str, int | None]:
        """Return it by the names of the wire; None: no limit."""
        return {name: number or None for name, number in self._asdict().items()}


UNLIMITED = Allowance()


class ChosenAllowance(msgspec.Struct, frozen=True):
    """What an admin has chosen. None: what the settings say; 0: no limit."""

    storage: int | None = None
    shares: int | None = None
    requests: int | None = None

    def over(self, default: Allowance) -> Allowance:
        """Return what counts."""
        chosen = (self.storage, self.shares, self.requests)
        return Allowance(*(own if each is None else each for each, own in zip(chosen, default, strict=True)))


class Allowances:
    """What each user and organization may have. Looking it up takes no time."""

    def __init__(self, of_users: Allowance = UNLIMITED, of_organizations: Allowance = UNLIMITED) -> None:
        """Take what the settings say of each."""
        self.of_users = of_users
        self.of_organizations = of_organizations
        self._chosen: Mapping[str, ChosenAllowance] = {}

    def of_user(self, user_id: str) -> Allowance:
        """Return what a user may have."""
        chosen = self._chosen.get(user_key(user_id))
        return self.of_users if chosen is None else chosen.over(self.of_users)

    def of_organization(self, name: str) -> Allowance:
        """Return what all users of an organization may have together."""
        chosen = self._chosen.get(organization_key(name))
        return self.of_organizations if chosen is None else chosen.over(self.of_organizations)

    @property
    def are_any(self) -> bool:
        """Whether anybody has a limit."""
        return bool(self._chosen) or self.of_users != UNLIMITED or self.of_organizations != UNLIMITED

    def know(self, chosen: Mapping[str, ChosenAllowance]) -> None:
        """Take what admins have chosen, by :func:`user_key` and :func:`organization_key`."""
        self._chosen = chosen

    def learn(self, key: str, chosen: ChosenAllowance) -> None:
        """Take what an admin has just chosen for one."""
        self._chosen = {**self._chosen, key: chosen}


def user_key(user_id: str) -> str:
    """Return what a user is called among those who have an allowance."""
    return f"user:{user_id}"


def organization_key(name: str) -> str:
    """Return what an organization is called there."""
    return f"organization:{name}"


def checked_choice(chosen: ChosenAllowance, most: Allowance | None) -> ChosenAllowance:
    """Return ``chosen``, if it can be, and may be: no more than ``most``.

    Raises:
        ShareError: INVALID_ARGUMENT, FORBIDDEN.
    """
    for name in Allowance._fields:
        number: int | None = getattr(chosen, name)
        if number is None:
            continue
        if not 0 <= number <= MAX_ALLOWED:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{name}: must be from 0 (no limit) to 2^53")
        bound = getattr(most, name) if most is not None else 0
        if bound and not 0 < number <= bound:
            message = f"Forbidden: {name}: only an admin of the server may allow more than {bound:,}"
            raise ShareError(ErrorCode.FORBIDDEN, message)
    return chosen
