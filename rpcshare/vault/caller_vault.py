"""The vault in the hands of one caller."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller, Scope
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.vault.entry import VaultEntry, VaultOwner, organization_of, owner_of
from rpcshare.vault.envelope import VaultIntegrityError

if TYPE_CHECKING:
    from rpcshare.vault.vault import Vault  # which imports SQLAlchemy

__all__ = ["CallerVault"]

Entries: TypeAlias = list[VaultEntry]

logger = logging.getLogger("rpcshare.vault")


class CallerVault:
    """What one caller may do: with the own entries all, with the organization's as the role allows.

    Whoever may create shares has entries. The organization's entries are in the hands of its
    admins; its members are told that there are some, so that they know what their agents can use. An admin
    of the server has no right to the entries of users: who can read all settings need not read all keys.

    Every method raises ShareError: UNAUTHORIZED, FORBIDDEN, INVALID_ARGUMENT, STORAGE_UNAVAILABLE.
    """

    def __init__(
        self,
        opened: Callable[[], Awaitable[Vault]],
        caller: Caller,
        audit: AuditLog,
        *,
        may_retrieve: bool = True,
    ) -> None:
        """Act for ``caller`` and tell ``audit`` of it.

        Args:
            opened: returns the vault, which is opened when somebody first needs it.
            caller: who is asking.
            audit: is told what was done, and what was refused.
            may_retrieve: whether values can be read.
        """
        self._opened = opened
        self._caller = caller
        self._audit = audit
        self._may_retrieve = may_retrieve

    @property
    def caller(self) -> Caller:
        """Who is asking."""
        return self._caller

    async def store(self, given: object) -> VaultEntry:
        """Keep a value, of the caller or, with ``owner: "organization"``, of the organization."""
        with self._done(Action.VAULT_STORE) as done:
            owner = self._owner_for(given)
            entry = await (await self._opened()).store(owner, given)
            done.append(entry)
        return entry

    async def list(self) -> list[VaultEntry]:
        """Return the caller's entries and the organization's, without values, the oldest first."""
        with self._failures(Action.VAULT_LIST):
            own, organization = self._own(), organization_of(self._caller)
            owners = [*own, *([] if organization is None else [organization])]
            return await (await self._opened()).list(owners)

    async def retrieve(self, entry_id: str) -> tuple[VaultEntry, str]:
        """Return an entry with its value. The server may have this switched off: FORBIDDEN."""
        with self._done(Action.VAULT_RETRIEVE) as done:
            owners = self._managed()
            if not self._may_retrieve:
                message = "Forbidden: this server hands out no values of the vault"
                raise ShareError(ErrorCode.FORBIDDEN, message)
            entry, value = await (await self._opened()).retrieve(owners, entry_id)
            done.append(entry)
        return entry, value

    async def rotate(self, entry_id: str, value: object) -> VaultEntry:
        """Put another value in the place of one."""
        with self._done(Action.VAULT_ROTATE) as done:
            owners = self._managed()
            entry = await (await self._opened()).rotate(owners, entry_id, value)
            done.append(entry)
        return entry

    async def revoke(self, entry_id: str) -> VaultEntry:
        """Remove an entry: it is used nowhere from now on, and cannot be had back."""
        with self._done(Action.VAULT_REVOKE) as done:
            owners = self._managed()
            entry = await (await self._opened()).revoke(owners, entry_id)
            done.append(entry)
        return entry

    def _own(self) -> Sequence[VaultOwner]:
        """Return the owners whose entries are the caller's."""
        if self._caller.has_lost_standing:
            message = "Unauthorized: this credential is no longer valid"
            raise ShareError(ErrorCode.UNAUTHORIZED, message)
        owner = owner_of(self._caller)
        if owner is None:
            raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the vault wants a caller with a name")
        if not self._caller.has(Scope.CREATE):
            raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: the vault wants the scope create")
        if self._caller.user is not None:
            return [owner]
        return [owner, *(owner._replace(id=alias) for alias in self._caller.aliases)]

    def _managed(self) -> Sequence[VaultOwner]:
        """Return the owners whose entries the caller may read and change."""
        own, organization = self._own(), organization_of(self._caller)
        user = self._caller.user
        if organization is None or user is None or not user.manages_organization:
            return own
        return [*own, organization]

    def _owner_for(self, given: object) -> VaultOwner:
        own = self._own()
        if not isinstance(given, dict) or given.get("owner") != "organization":
            return own[0]
        organization, user = organization_of(self._caller), self._caller.user
        if organization is None or user is None:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "owner: this caller is in no organization")
        if not user.manages_organization:
            message = "Forbidden: the organization's entries are in the hands of its admins"
            raise ShareError(ErrorCode.FORBIDDEN, message)
        return organization

    @contextmanager
    def _done(self, action: Action) -> Iterator[Entries]:
        entries: Entries = []
        with self._failures(action):
            yield entries
        for entry in entries:
            owner = "organization" if entry.is_of_organization else "user"
            details = {"entry": entry.id, "service": entry.service, "owner": owner}
            self._audit.done(action, self._caller, **details)

    @contextmanager
    def _failures(self, action: Action) -> Iterator[None]:
        with self._audit.refusals(action, self._caller):
            try:
                yield
            except VaultIntegrityError as exc:
                self._audit.failed(action, self._caller, ErrorCode.STORAGE_UNAVAILABLE)
                raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
            except DatabaseError as exc:
                logger.warning("the vault cannot be reached: %s", exc)
                message = "the vault cannot be reached"
                raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, message, retry_after=5.0) from exc
