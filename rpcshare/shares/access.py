"""Who may do what, with which share: every decision about rights is made here.

Each function returns if the caller may, and raises otherwise.
"""

from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.passwords import Passwords
from rpcshare.auth.subject_sources import organization_of
from rpcshare.errors import ErrorCode, Reason, ShareError
from rpcshare.shares.objects import Head, Visibility
from rpcshare.shares.page import Reach
from rpcshare.shares.share_identity import Credentials, SecretKind, equal_secrets, secret_hash

__all__ = [
    "check_visibility",
    "is_public",
    "is_secret_of",
    "may_create",
    "may_list",
    "may_list_all",
    "may_list_own",
    "may_manage_key",
    "may_manage_keys",
    "may_manage_users",
    "may_read",
    "may_unlock",
    "may_write",
    "reads_without_password",
    "refusal",
    "require_standing",
]


def may_create(caller: Caller, *, anonymous_create: bool) -> None:
    """Decide whether ``caller`` may make shares.

    Raises:
        ShareError: UNAUTHORIZED, FORBIDDEN.
    """
    require_standing(caller)
    if caller.subject is None:
        if not anonymous_create:
            raise _unauthorized()
    elif not caller.has(Scope.CREATE):
        raise _forbidden("this caller may not create shares")


def is_public(head: Head) -> bool:
    """Whether whoever has the link may read a share."""
    return head.visibility is Visibility.LINK and head.password_hash is None


async def may_read(caller: Caller, share_id: str, head: Head, passwords: Passwords) -> None:
    """Decide whether ``caller`` may read a share: to know its id, the link, is enough for most.

    Raises:
        ShareError: UNAUTHORIZED, FORBIDDEN.
    """
    if reads_without_password(caller, share_id, head):
        return
    if caller.password is None or head.visibility is not Visibility.LINK:
        raise _no_reader(caller, head)
    await _require_right(caller.password, head, passwords)


async def may_unlock(caller: Caller, head: Head, password: str, passwords: Passwords) -> None:
    """Decide whether ``password`` is a right to read a share.

    Raises:
        ShareError: UNAUTHORIZED, FORBIDDEN: the share is private, or has no password.
    """
    require_standing(caller)
    if head.visibility is not Visibility.LINK:
        raise _no_reader(caller, head)
    if head.password_hash is None:
        raise _forbidden("this share has no password")
    await _require_right(password, head, passwords)


def reads_without_password(caller: Caller, share_id: str, head: Head) -> bool:
    """Whether ``caller`` may read a share without a password, for a right of its own or because none is set.

    Raises:
        ShareError: UNAUTHORIZED: a credential of the caller's holds no more.
    """
    require_standing(caller)
    return (
        is_public(head)
        or caller.owns(head.owner)
        or (caller.has(Scope.READ) and caller.reaches(organization_of(head.owner)))
        or _is_for_members(caller, head)
        or any(view.opens(share_id, head.generation, head.epoch) for view in caller.views)
    )


def refusal(caller: Caller, share_id: str, head: Head) -> ShareError | None:
    """Return why ``caller``, who has been reading a share, may not go on now that its settings changed.

    Who read it by a password has to show it again: it may be another.
    """
    try:
        may = reads_without_password(caller, share_id, head)
    except ShareError as exc:
        return exc
    return None if may else _no_reader(caller, head)


def may_write(caller: Caller, head: Head, secret: str | None, credentials: Credentials) -> None:
    """Decide whether ``caller`` may sync and delete a share: by its secret, or as its owner.

    Raises:
        ShareError: INVALID_SECRET: a secret is given, and wrong. FORBIDDEN: none is given, and the
            share is another's. UNAUTHORIZED.
    """
    require_standing(caller)
    if secret is not None:
        if not is_secret_of(secret, head, credentials):
            raise ShareError(ErrorCode.INVALID_SECRET, "Invalid secret")
    elif not (_owns(caller, head) or caller.has(Scope.ADMIN) or _manages(caller, head)):
        raise _forbidden("only the owner of a share needs no secret")


def may_list_own(caller: Caller) -> tuple[str, ...]:
    """Return the owners whose shares ``caller`` may list.

    Raises:
        ShareError: UNAUTHORIZED.
    """
    require_standing(caller)
    if caller.subject is None:
        raise _unauthorized()
    return caller.owners


def may_list_all(caller: Caller) -> None:
    """Decide whether ``caller`` may list the shares of everybody.

    Raises:
        ShareError: UNAUTHORIZED, FORBIDDEN.
    """
    require_standing(caller)
    if caller.subject is None:
        raise _unauthorized()
    if not caller.has(Scope.ADMIN):
        raise _forbidden("only an admin may list the shares of others")


def may_list(caller: Caller) -> Reach:
    """Return which shares ``caller`` may list, and search in.

    Raises:
        ShareError: UNAUTHORIZED.
    """
    owners = may_list_own(caller)
    if caller.has(Scope.ADMIN):
        return Reach(None)
    user = caller.user
    if user is None:
        return Reach(owners)
    return Reach(owners, user.organization, sees_all_of_it=user.manages_organization)


def check_visibility(visibility: Visibility, owner: str | None) -> None:
    """Return if a share of ``owner`` can be as visible as that.

    Raises:
        ShareError: FORBIDDEN: it is for an organization, and its owner is in none.
    """
    if visibility is Visibility.ORGANIZATION and organization_of(owner) is None:
        raise _forbidden("visibility organization needs an owner who is a user: this share has none")


def may_manage_keys(caller: Caller) -> None:
    """Decide whether ``caller`` may make, list and revoke API keys: an admin all, a user the own ones.

    Raises:
        ShareError: UNAUTHORIZED, FORBIDDEN.
    """
    require_standing(caller)
    if caller.subject is None:
        raise _unauthorized()
    if caller.user is not None and caller.user.may_have_keys:
        return
    if not caller.has(Scope.ADMIN):
        raise _forbidden("only an admin may manage API keys")


def may_manage_key(caller: Caller, user_id: str | None, organization: str | None) -> bool:
    """Whether a key is among those that ``caller`` manages, who may manage any at all.

    Args:
        caller: who.
        user_id: whose key it is; None: no user's.
        organization: that the key is good for.
    """
    if caller.has(Scope.ADMIN):
        return True
    user = caller.user
    if user is None or user_id is None or organization != user.organization:
        return False
    return user_id == user.id or user.manages_organization


def may_manage_users(caller: Caller) -> str | None:
    """Return the organization whose users ``caller`` manages; None: those of all.

    Raises:
        ShareError: UNAUTHORIZED, FORBIDDEN.
    """
    require_standing(caller)
    if caller.subject is None:
        raise _unauthorized()
    if caller.has(Scope.ADMIN):
        return None
    if caller.user is None or not caller.user.manages_organization:
        raise _forbidden("only an admin may manage users")
    return caller.user.organization


def require_standing(caller: Caller) -> None:
    """Decide whether ``caller`` may do anything at all.

    A connection, and what was got over it, may outlive the credential that opened it.

    Raises:
        ShareError: UNAUTHORIZED.
    """
    if caller.has_lost_standing:
        raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the credential has expired or been revoked")


def _is_for_members(caller: Caller, head: Head) -> bool:
    """Whether a share is for the users of an organization, of whom ``caller`` is one."""
    organization = organization_of(head.owner)
    is_for_members = head.visibility is Visibility.ORGANIZATION and organization is not None
    return is_for_members and caller.organization == organization


def _manages(caller: Caller, head: Head) -> bool:
    """Whether a share is of the organization that is in the caller's hands."""
    organization = organization_of(head.owner)
    user = caller.user
    return user is not None and user.manages_organization and user.organization == organization


def _owns(caller: Caller, head: Head) -> bool:
    # A credential of the owner's that may only read is no right to change anything.
    return caller.owns(head.owner) and caller.has(Scope.CREATE)


async def _require_right(password: str, head: Head, passwords: Passwords) -> None:
    if head.password_hash is None or not await passwords.is_right(password, head.password_hash):
        message = "Unauthorized: the password is wrong"
        raise ShareError(ErrorCode.UNAUTHORIZED, message, reason=Reason.PASSWORD_NEEDED)


def _no_reader(caller: Caller, head: Head) -> ShareError:
    is_private = head.visibility is not Visibility.LINK
    what = "this share is private" if is_private else "this share has a password"
    if head.visibility is Visibility.ORGANIZATION:
        what = "this share is for the users of an organization"
    reason = None if is_private else Reason.PASSWORD_NEEDED
    if caller.subject is None:
        return ShareError(ErrorCode.UNAUTHORIZED, f"Unauthorized: {what}", reason=reason)
    return ShareError(ErrorCode.FORBIDDEN, f"Forbidden: {what}", reason=reason)


def is_secret_of(secret: str, head: Head, credentials: Credentials) -> bool:
    """Whether a share's secret is ``secret``."""
    if head.secret_kind in (SecretKind.RANDOM, SecretKind.IMPORTED):
        is_known = equal_secrets(secret_hash(secret), head.secret_hash or "")
        if is_known or head.owner is None:
            return is_known
    expected = credentials.secret(head.session_id, head.secret_kind, head.owner)
    return equal_secrets(secret, expected)


def _unauthorized() -> ShareError:
    return ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: a credential is needed")


def _forbidden(why: str) -> ShareError:
    return ShareError(ErrorCode.FORBIDDEN, f"Forbidden: {why}")
