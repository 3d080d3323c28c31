"""``Users``, the capability to manage users (PROTOCOL.md, "users")."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller, Role, Scope
from rpcshare.auth.subject_sources import Source, is_source, owner_name, user_source
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import RpcTarget, rpc_method
from rpcshare.shares.access import may_manage_users
from rpcshare.shares.service import ShareService

if TYPE_CHECKING:
    from rpcshare.auth.people import People

__all__ = ["UsersRpc", "check_role", "check_target", "database_failures", "roles_given_by"]


class UserListOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``list`` takes."""

    cursor: str | None = None
    limit: int = 50
    query: str = ""
    organization: str | None = None


class ClaimOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``claimShares`` takes."""

    subject: str
    source: str = Source.KEY


class UsersRpc(RpcTarget):
    """The users of an organization, in the hands of its admin; or of all, in those of the server's."""

    def __init__(self, people: People, caller: Caller, audit: AuditLog, service: ShareService) -> None:
        """Manage ``people``, who have shares in ``service``, on behalf of ``caller``; tell ``audit`` of it.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN.
        """
        with audit.refusals(Action.USERS_LIST, caller):
            may_manage_users(caller)
        self._people = people
        self._caller = caller
        self._audit = audit
        self._service = service

    @rpc_method("list(options?)")
    async def list(self, options: UserListOptions | None = None) -> dict[str, Any]:
        """Return a page of users; ``organization`` is for the server's admin to choose."""
        wanted = options or UserListOptions()
        with self._permitted(Action.USERS_LIST) as organization:
            users, cursor = await self._people.page(
                wanted.organization if organization is None else organization,
                cursor=wanted.cursor,
                limit=wanted.limit,
                query=wanted.query,
            )
        return {"users": [user.described() for user in users], "cursor": cursor}

    @rpc_method("get(id)")
    async def get(self, user_id: str) -> dict[str, Any]:
        """Return a user."""
        with self._permitted(Action.USERS_LIST) as organization:
            return (await self._people.find(user_id, organization)).described()

    @rpc_method("setRole(id, role)")
    async def set_role(self, user_id: str, role: str) -> dict[str, Any]:
        """Give a user a role."""
        with self._permitted(Action.USER_ROLE) as organization:
            given = check_role(self._caller, role)
            await check_target(self._people, self._caller, user_id, organization)
            user = await self._people.set_role(user_id, given, organization)
        self._audit.done(Action.USER_ROLE, self._caller, user=user_id, role=given.value)
        return user.described()

    @rpc_method("disable(id)")
    async def disable(self, user_id: str) -> dict[str, Any]:
        """Sign a user out everywhere, within 5 seconds, for as long as nobody enables it."""
        return await self._set_disabled(user_id, Action.USER_DISABLE, disabled=True)

    @rpc_method("enable(id)")
    async def enable(self, user_id: str) -> dict[str, Any]:
        """Let a disabled user sign in again."""
        return await self._set_disabled(user_id, Action.USER_ENABLE, disabled=False)

    @rpc_method("claimShares(id, options)")
    async def claim_shares(self, user_id: str, options: ClaimOptions) -> dict[str, Any]:
        """Make the shares of an old subject a user's: for an admin of the server."""
        if options.source and not is_source(options.source):
            raise ShareError(
                ErrorCode.INVALID_ARGUMENT,
                "source: must be key, token, certificate, proxy or jwt:ISSUER; or empty, of older versions",
            )
        with self._permitted(Action.SHARE_ADOPT) as organization:
            user = await self._people.find(user_id, organization)
            former = owner_name(options.source, options.subject)
            owner = owner_name(user_source(user.organization), user.id)
            done = await self._service.hand_over(self._caller, former, owner)
        return {"claimed": done.count, "indexing": done.indexing}

    async def _set_disabled(self, user_id: str, action: Action, *, disabled: bool) -> dict[str, Any]:
        with self._permitted(action) as organization:
            await check_target(self._people, self._caller, user_id, organization)
            user = await self._people.set_disabled(user_id, disabled=disabled, organization=organization)
        self._audit.done(action, self._caller, user=user_id)
        return user.described()

    @contextlib.contextmanager
    def _permitted(self, action: Action) -> Iterator[str | None]:
        """Give the organization whose users the caller manages; None: all."""
        with self._audit.refusals(action, self._caller), database_failures():
            yield may_manage_users(self._caller)  # anew: a capability may outlive its credential


@contextlib.contextmanager
def database_failures() -> Iterator[None]:
    """Tell of failures of the database of records as of those of the store."""
    try:
        yield
    except DatabaseError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, "Storage unavailable", retry_after=5) from exc


def roles_given_by(caller: Caller) -> tuple[Role, ...]:
    """Return the roles that ``caller`` may give: none higher than the own."""
    if caller.has(Scope.ADMIN):
        return tuple(Role)
    if caller.user is not None and caller.user.manages_organization:
        return (Role.VIEWER, Role.MEMBER, Role.ADMIN)
    return ()


def check_role(caller: Caller, role: str) -> Role:
    """Return the role of this name, if ``caller`` may give it.

    Raises:
        ShareError: INVALID_ARGUMENT: there is none. FORBIDDEN.
    """
    if role not in tuple(Role):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"role: must be one of {', '.join(Role)}")
    if role not in roles_given_by(caller):
        raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: only an admin of the server may give this role")
    return Role(role)


async def check_target(people: People, caller: Caller, user_id: str, organization: str | None) -> None:
    """Return if ``caller`` may change a user.

    Raises:
        ShareError: INVALID_ARGUMENT: there is none, or it is the caller: an admin could lock itself out.
            FORBIDDEN: it is an admin of the server.
    """
    user = await people.find(user_id, organization)
    if caller.user is not None and caller.user.id == user_id:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "id: ask another admin to change your own account")
    if user.role is Role.SERVER_ADMIN and not caller.has(Scope.ADMIN):
        raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: only an admin of the server may change this user")
