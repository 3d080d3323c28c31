"""What one caller may use of workspaces, and of the agents that run on them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller, Scope
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.workspaces.workspaces import Reach

__all__ = ["AGENTS", "WORKSPACES", "CallerRights", "Kind", "unreachable"]


class Kind(msgspec.Struct, frozen=True):
    """What the rights are over, in the words of messages."""

    one: str
    """With its article."""
    many: str


WORKSPACES = Kind("a workspace", "workspaces")
AGENTS = Kind("an agent", "agents")


class CallerRights:
    """The rights of one caller over things of one kind, which all begin with their owner.

    Whoever may create shares may create them, and do anything with the own ones. An admin of an organization
    has those of its users in hand, and an admin of the server has all.
    """

    def __init__(self, kind: Kind, caller: Caller, audit: AuditLog) -> None:
        """Tell ``audit`` of what is refused to ``caller``."""
        self._kind = kind
        self._caller = caller
        self._audit = audit
        self._logger = logging.getLogger(f"rpcshare.{kind.many}")

    @property
    def is_any(self) -> bool:
        """Whether the caller may use any at all; what it may not use is as if it were not there."""
        caller = self._caller
        return caller.owner is not None and not caller.has_lost_standing and caller.has(Scope.CREATE)

    def owner(self) -> str:
        """Return the owner of what the caller makes.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN: the caller may use none.
        """
        caller, owner = self._caller, self._caller.owner
        if caller.has_lost_standing:
            message = "Unauthorized: the credential has expired or been revoked"
            raise ShareError(ErrorCode.UNAUTHORIZED, message)
        if owner is None:
            message = f"Unauthorized: {self._kind.one} wants a caller with a name"
            raise ShareError(ErrorCode.UNAUTHORIZED, message)
        if not caller.has(Scope.CREATE):
            raise ShareError(ErrorCode.FORBIDDEN, f"Forbidden: {self._kind.one} wants the scope create")
        return owner

    def reach(self) -> Reach:
        """Return whose the caller may use. Raises ShareError as :meth:`owner` does."""
        self.owner()
        caller, user = self._caller, self._caller.user
        if Scope.ADMIN in caller.scopes:
            return Reach(caller.owners, is_all=True)
        manages = user is not None and user.manages_organization
        return Reach(caller.owners, user.organization if user is not None and manages else None)

    @contextmanager
    def checked(self, action: Action) -> Iterator[None]:
        """Do ``action`` within: a refusal is told to the audit log, and a failing database to the caller.

        Raises:
            ShareError: STORAGE_UNAVAILABLE: the database cannot be reached.
        """
        with self._audit.refusals(action, self._caller):
            try:
                yield
            except DatabaseError as exc:
                self._logger.warning("the database of %s cannot be reached: %s", self._kind.many, exc)
                raise unreachable(self._kind) from exc


def unreachable(kind: Kind) -> ShareError:
    """Return what a caller is told when the database cannot be reached."""
    return ShareError(ErrorCode.STORAGE_UNAVAILABLE, f"the {kind.many} cannot be reached", retry_after=5)
