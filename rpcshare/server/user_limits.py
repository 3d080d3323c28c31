"""What users and organizations have and may have, and what admins choose of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from rpcshare.auth.allowances import (
    Allowance,
    Allowances,
    ChosenAllowance,
    checked_choice,
    organization_key,
    user_key,
)
from rpcshare.auth.caller import Caller, CallerUser, Scope
from rpcshare.auth.request_rates import RequestRates
from rpcshare.auth.subject_sources import owner_name, user_source
from rpcshare.auth.users import User
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.service import ShareService
from rpcshare.shares.usage import Measured, Usage

if TYPE_CHECKING:
    from rpcshare.auth.people import People

__all__ = ["LimitOptions", "UserLimits"]


class LimitOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be changed; None: what the settings say from now on, 0: no limit."""

    storage: int | UnsetType | None = UNSET
    shares: int | UnsetType | None = UNSET
    requests: int | UnsetType | None = UNSET

    def over(self, before: ChosenAllowance) -> ChosenAllowance:
        """Return what is chosen then."""
        given = {
            name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET
        }
        return msgspec.structs.replace(before, **given)


class UserLimits:
    """The limits of a server's users and organizations."""

    def __init__(self, people: People, rates: RequestRates, service: ShareService) -> None:
        """Take ``people``, whose shares are in ``service``, and whose requests ``rates`` count."""
        self._people = people
        self._rates = rates
        self._service = service

    @property
    def _allowances(self) -> Allowances:
        return self._rates.allowances

    async def of_user(self, user: CallerUser | User) -> tuple[Measured, Measured]:
        """Return what a user has and may have, and the organization.

        Raises:
            ShareError: STORAGE_UNAVAILABLE.
        """
        owner = owner_name(user_source(user.organization), user.id)
        used = await self._service.usage(owner)
        own = user_key(user.id)
        measured = Measured(used.user, self._rates.used(own), self._allowances.of_user(user.id))
        return measured, self._of_organization(user.organization, used.organization)

    async def of_organization(self, name: str) -> Measured:
        """Return what an organization has and may have. Raises STORAGE_UNAVAILABLE."""
        nobody = owner_name(user_source(name), "")
        return self._of_organization(name, (await self._service.usage(nobody)).organization)

    def _of_organization(self, name: str, used: Usage) -> Measured:
        requests = self._rates.used(organization_key(name))
        return Measured(used, requests, self._allowances.of_organization(name))

    async def described(self, user: CallerUser | User) -> dict[str, object]:
        """Return what :meth:`of_user` does by the names of the wire."""
        own, organization = await self.of_user(user)
        return {"user": own.described(), "organization": organization.described()}

    async def choose_for_user(self, caller: Caller, user: User, options: LimitOptions) -> None:
        """Have a user, whom ``caller`` manages, be allowed what is given.

        An admin of an organization allows no more than the settings do: the rest is the operator's.

        Raises:
            ShareError: INVALID_ARGUMENT, FORBIDDEN.
        """
        most = None if caller.has(Scope.ADMIN) else self._allowances.of_users
        await self._choose(user_key(user.id), options, most)

    async def choose_for_organization(self, caller: Caller, name: str, options: LimitOptions) -> None:
        """Have all users of an organization together be allowed what is given.

        Raises:
            ShareError: INVALID_ARGUMENT; FORBIDDEN: the caller is no admin of the server.
        """
        if not caller.has(Scope.ADMIN):
            message = "Forbidden: only an admin of the server sets the limits of an organization"
            raise ShareError(ErrorCode.FORBIDDEN, message)
        await self._people.find_organization(name)
        await self._choose(organization_key(name), options, None)

    async def _choose(self, key: str, options: LimitOptions, most: Allowance | None) -> None:
        checked_choice(options.over(ChosenAllowance()), most)
        chosen = options.over((await self._people.chosen_allowances()).get(key, ChosenAllowance()))
        await self._people.choose_allowance(key, chosen)
        self._allowances.learn(key, chosen)  # other nodes hear of it within seconds
