"""The pages of a user: the own profile with its sessions, and the organization with its members."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from rpcshare.auth.api_keys import ApiKey, ApiKeys
from rpcshare.auth.audit import Action, RecordedEvent
from rpcshare.auth.caller import Caller, CallerUser
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.user_limits import UserLimits
from rpcshare.server.users_rpc import check_role, check_target, database_failures, roles_given_by
from rpcshare.server.web.forms import check_own_form, read_form
from rpcshare.server.web.responses import html_answer, redirect
from rpcshare.shares.access import may_manage_users, require_standing
from rpcshare.shares.failures import storage_unavailable
from rpcshare.storage import StoreError

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite
    from rpcshare.server.web.user_sign_in import SignedIn

__all__ = ["UserPages"]

_KEYS = 100  # of an organization, on its page
_EVENTS = 20
_NOTICES = {"ended": "The session is ended.", "changed": "The change is made."}


class UserPages:
    """What users see of themselves and of each other."""

    def __init__(self, site: PageSite, signed_in: SignedIn, keys: ApiKeys | None) -> None:
        """Show the users of ``signed_in``, and their ``keys``, as pages of ``site``."""
        self._site = site
        self._api_keys = keys
        self._events = signed_in.audit
        self._limits = UserLimits(signed_in.people, site.authenticator.rates, site.service)
        self._people = signed_in.people
        self._callers = signed_in.callers

    async def profile(self, request: Request, caller: Caller) -> Response:
        """Return the caller's own page."""
        me = _require_user(caller)
        with database_failures():
            identities = await self._people.identities_of(me.id)
            sessions = await self._people.sessions_of(me.id)
        frame = self._site.frame(request, caller, "Profile")
        own = self._own_session(request)
        usage = None
        with contextlib.suppress(ShareError):  # the page is good for more than this
            usage = await self._limits.of_user(me)
        notice = _NOTICES.get(request.query_params.get("notice", ""), "")
        html = await self._site.draw(
            request,
            lambda: self._site.pages.profile(
                frame, me, identities, sessions, usage=usage, own_session=own, notice=notice
            ),
        )
        return html_answer(request, html)

    async def end_session(self, request: Request, caller: Caller) -> Response:
        """End one of the caller's sessions, or all."""
        check_own_form(request, self._site.origins)
        me = _require_user(caller)
        form = await read_form(request)
        with database_failures():
            await self._people.end_sessions(me.id, form.get("session") or None)
        self._site.service.audit.done(Action.SESSION_END, caller)
        return redirect("../../profile?notice=ended")

    async def organization(self, request: Request, caller: Caller) -> Response:
        """Return the members of the caller's organization, with forms for its admins."""
        me = _require_user(caller)
        cursor = request.query_params.get("cursor") or None
        wanted = request.query_params.get("q", "")[:200].strip()
        with database_failures():
            members, more = await self._people.page(me.organization, cursor=cursor, query=wanted)
        usage = None
        with contextlib.suppress(ShareError):  # likewise
            usage = await self._limits.of_organization(me.organization)
        keys: list[ApiKey] | None = None
        events: list[RecordedEvent] | None = None
        if me.manages_organization and cursor is None and not wanted:
            keys = await self._keys_of(me.organization)
            with database_failures():
                events, _ = await self._events.page(me.organization, limit=_EVENTS)
        shown = {key.user or "" for key in keys or ()} | {each.event.subject for each in events or ()}
        with database_failures():
            names = await self._people.names_of(shown, me.organization)
        frame = self._site.frame(request, caller, "Organization")
        notice = _NOTICES.get(request.query_params.get("notice", ""), "")
        html = await self._site.draw(
            request,
            lambda: self._site.pages.organization(
                frame,
                me,
                members,
                roles=roles_given_by(caller),
                cursor=more,
                query=wanted,
                notice=notice,
                usage=usage,
                keys=keys,
                names=names,
                events=events,
            ),
        )
        return html_answer(request, html)

    async def audit(self, request: Request, caller: Caller) -> Response:
        """Return what was done in the caller's organization, for its admins."""
        me = _require_user(caller)
        with self._site.service.audit.refusals(Action.AUDIT_READ, caller):
            if not me.manages_organization:
                message = "Forbidden: only an admin of the organization sees what was done in it"
                raise ShareError(ErrorCode.FORBIDDEN, message)
        cursor = request.query_params.get("cursor") or None
        with database_failures():
            events, more = await self._events.page(me.organization, cursor=cursor)
            names = await self._people.names_of({each.event.subject for each in events}, me.organization)
        frame = self._site.frame(request, caller, "What was done")
        html = await self._site.draw(
            request, lambda: self._site.pages.organization_audit(frame, events, names, cursor=more)
        )
        return html_answer(request, html)

    async def _keys_of(self, organization: str) -> list[ApiKey] | None:
        """Return the newest keys of an organization's users."""
        if self._api_keys is None:
            return None
        try:
            found = await self._api_keys.list()
        except StoreError as exc:
            raise storage_unavailable(exc) from exc
        of_users = [key for key in found if key.user is not None and key.organization == organization]
        return sorted(of_users, key=lambda key: key.created_at, reverse=True)[:_KEYS]

    async def change_user(self, request: Request, caller: Caller) -> Response:
        """Give a member a role, disable or enable it."""
        check_own_form(request, self._site.origins)
        form, user_id = await read_form(request), request.path_params["user_id"]
        action = {"disable": Action.USER_DISABLE, "enable": Action.USER_ENABLE}.get(
            form.get("do", ""), Action.USER_ROLE
        )
        with self._site.service.audit.refusals(action, caller), database_failures():
            organization = may_manage_users(caller)
            await check_target(self._people, caller, user_id, organization)
            if action is Action.USER_ROLE:
                role = check_role(caller, form.get("role", ""))
                changed = await self._people.set_role(user_id, role, organization)
            else:
                disabled = action is Action.USER_DISABLE
                changed = await self._people.set_disabled(
                    user_id, disabled=disabled, organization=organization
                )
        details = {"role": changed.role.value} if action is Action.USER_ROLE else {}
        self._site.service.audit.done(
            action, caller, user=user_id, targetOrganization=changed.organization, **details
        )
        return redirect("../../organization?notice=changed")

    def _own_session(self, request: Request) -> str:
        sealed = request.cookies.get(self._site.cookies.session, "")
        secret = self._site.seal.open(sealed) if self._site.seal is not None and sealed else None
        return (self._callers.session_id(secret) if secret else None) or ""


def _require_user(caller: Caller) -> CallerUser:
    """Return the user that a caller is, with all that the user may.

    Raises:
        ShareError: UNAUTHORIZED, FORBIDDEN.
    """
    require_standing(caller)
    if caller.subject is None:
        raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: a credential is needed")
    if caller.user is None or not caller.user.is_whole:
        raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: only who has signed in as a user has this page")
    return caller.user
