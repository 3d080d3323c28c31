"""``Users``, the capability to manage users (PROTOCOL.md, "users")."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from rpcshare.auth.audit import Action
from rpcshare.auth.caller import Caller, Role, Scope
from rpcshare.auth.subject_sources import Source, is_source, owner_name, user_source
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import RpcTarget, rpc_method
from rpcshare.server.user_limits import LimitOptions, UserLimits
from rpcshare.shares.access import may_manage_users
from rpcshare.shares.service import ShareService

if TYPE_CHECKING:
    from rpcshare.auth.people import People
    from rpcshare.auth.users import User
    from rpcshare.server.web.user_sign_in import SignedIn

__all__ = ["UsersRpc", "check_role", "check_target", "database_failures", "roles_given_by"]


class UserListOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``list`` takes."""

    cursor: str | None = None
    limit: int = 50
    query: str = ""
    organization: str | None = None


class OrganizationListOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``organizations`` takes."""

    cursor: str | None = None
    limit: int = 50


class AuditOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``audit`` takes."""

    cursor: str | None = None
    limit: int = 50
    organization: str | None = None


class ClaimOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What ``claimShares`` takes."""

    subject: str
    source: str = Source.KEY


class UsersRpc(RpcTarget):
    """The users of an organization, in the hands of its admin; or of all, in those of the server's."""

    def __init__(
        self,
        signed_in: SignedIn,
        caller: Caller,
        service: ShareService,
        limits: UserLimits,
    ) -> None:
        """Manage users, who have shares in ``service`` and have ``limits``, on behalf of ``caller``.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN.
        """
        with service.audit.refusals(Action.USERS_LIST, caller):
            may_manage_users(caller)
        self._people = signed_in.people
        self._events = signed_in.audit
        self._caller = caller
        self._audit = service.audit
        self._service = service
        self._limits = limits

    @property
    def caller(self) -> Caller:
        """For whom it acts."""
        return self._caller

    @rpc_method("list(options?)")
    async def list(self, options: UserListOptions | None = None) -> dict[str, Any]:
        """Return a page of users; ``organization`` is for the server's admin to choose."""
        wanted = options or UserListOptions()
        with self._permitted(Action.USERS_LIST) as organization:
            users, cursor = await self._people.page(
                _chosen(organization, wanted.organization),
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
        details = {"user": user_id, "role": given.value, "targetOrganization": user.organization}
        self._audit.done(Action.USER_ROLE, self._caller, **details)
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

    @rpc_method("limits(id)")
    async def limits(self, user_id: str) -> dict[str, Any]:
        """Return what a user has and may have, and what the user's organization does."""
        with self._permitted(Action.USERS_LIST) as organization:
            user = await self._people.find(user_id, organization)
            return await self._limits.described(user)

    @rpc_method("setLimits(id, limits)")
    async def set_limits(self, user_id: str, limits: LimitOptions) -> dict[str, Any]:
        """Change what a user may have; return what :meth:`limits` does."""
        with self._permitted(Action.USER_LIMITS) as organization:
            user = await check_target(self._people, self._caller, user_id, organization)
            await self._limits.choose_for_user(self._caller, user, limits)
            self._audit.done(
                Action.USER_LIMITS, self._caller, user=user_id, targetOrganization=user.organization
            )
            return await self._limits.described(user)

    @rpc_method("organizations(options?)")
    async def organizations(self, options: OrganizationListOptions | None = None) -> dict[str, Any]:
        """Return a page of the organizations that the caller manages."""
        wanted = options or OrganizationListOptions()
        with self._permitted(Action.USERS_LIST) as organization:
            if organization is not None:
                rows, cursor = [await self._people.find_organization(organization)], None
            else:
                rows, cursor = await self._people.organizations(cursor=wanted.cursor, limit=wanted.limit)
        found = [{"name": row.id, "createdAt": row.created_at, "users": row.users} for row in rows]
        return {"organizations": found, "cursor": cursor}

    @rpc_method("organizationLimits(name)")
    async def organization_limits(self, name: str) -> dict[str, Any]:
        """Return what an organization has and may have."""
        with self._permitted(Action.USERS_LIST) as organization:
            await self._people.find_organization(_chosen(organization, name) or name)
            return (await self._limits.of_organization(name)).described()

    @rpc_method("setOrganizationLimits(name, limits)")
    async def set_organization_limits(self, name: str, limits: LimitOptions) -> dict[str, Any]:
        """Change what an organization may have: for an admin of the server."""
        with self._permitted(Action.ORGANIZATION_LIMITS):
            await self._limits.choose_for_organization(self._caller, name, limits)
            self._audit.done(Action.ORGANIZATION_LIMITS, self._caller, targetOrganization=name)
            return (await self._limits.of_organization(name)).described()

    @rpc_method("audit(options?)")
    async def audit(self, options: AuditOptions | None = None) -> dict[str, Any]:
        """Return what was done in an organization, the newest first."""
        wanted = options or AuditOptions()
        with self._permitted(Action.AUDIT_READ) as managed:
            organization = _chosen(managed, wanted.organization)
            if organization is None:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "organization: of which one is to be told")
            await self._people.find_organization(organization)
            events, cursor = await self._events.page(organization, cursor=wanted.cursor, limit=wanted.limit)
        return {"events": [each.described() for each in events], "cursor": cursor}

    async def _set_disabled(self, user_id: str, action: Action, *, disabled: bool) -> dict[str, Any]:
        with self._permitted(action) as organization:
            await check_target(self._people, self._caller, user_id, organization)
            user = await self._people.set_disabled(user_id, disabled=disabled, organization=organization)
        self._audit.done(action, self._caller, user=user_id, targetOrganization=user.organization)
        return user.described()

    @contextlib.contextmanager
    def _permitted(self, action: Action) -> Iterator[str | None]:
        """Give the organization whose users the caller manages; None: all."""
        with self._audit.refusals(action, self._caller), database_failures():
            yield may_manage_users(self._caller)  # anew: a capability may outlive its credential


def _chosen(managed: str | None, asked: str | None) -> str | None:
    """Return whose users are meant, if the caller, who manages those of ``managed``, may ask for ``asked``.

    Raises:
        ShareError: FORBIDDEN: another organization's; whether there is one is not told.
    """
    if managed is not None and asked is not None and asked != managed:
        raise ShareError(
            ErrorCode.FORBIDDEN, "Forbidden: only an admin of the server sees other organizations"
        )
    return asked if managed is None else managed


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


async def check_target(people: People, caller: Caller, user_id: str, organization: str | None) -> User:
    """Return a user, if ``caller`` may change it.

    Raises:
        ShareError: INVALID_ARGUMENT: there is none, or it is the caller: an admin could lock itself out.
            FORBIDDEN: it is an admin of the server.
    """
    user = await people.find(user_id, organization)
    if caller.user is not None and caller.user.id == user_id:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "id: ask another admin to change your own account")
    if user.role is Role.SERVER_ADMIN and not caller.has(Scope.ADMIN):
        raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: only an admin of the server may change this user")
    return user
