"""Signing in with a provider, and out: what leads a browser there and back, and gives it a session."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rpcshare.auth.audit import Action
from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.auth.cookies import MAX_AGE
from rpcshare.auth.provider_errors import SignInError
from rpcshare.auth.subject_sources import user_source
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.web.forms import read_form
from rpcshare.server.web.refusals import next_of
from rpcshare.server.web.responses import html_answer, redirect
from rpcshare.structured_log import structlog

if TYPE_CHECKING:
    from rpcshare.auth.allowances import Allowances
    from rpcshare.auth.organization_audit import OrganizationAudit
    from rpcshare.auth.people import People
    from rpcshare.auth.sign_in import SignIns
    from rpcshare.auth.user_callers import UserCallers
    from rpcshare.auth.users import User
    from rpcshare.server.web.site import PageSite

__all__ = ["SignedIn", "UserSignIn", "as_user", "end_session"]

logger = structlog.get_logger("rpcshare.server")

_ATTEMPT_LASTS = 600  # seconds
# Has a space, so that it is never taken for the credential of a session's cookie.
_SIGNED_IN_BY = "signed in by "
_LONGEST_HINT = 2600  # characters: sealed, it has to fit into a cookie of 4,096
_MAX_ATTEMPTS = 4  # of one browser: the cookies of others are taken away


class SignedIn(NamedTuple):
    """What a server has whose users sign in."""

    people: People
    sign_ins: SignIns
    callers: UserCallers
    allowances: Allowances
    audit: OrganizationAudit


class UserSignIn:
    """The addresses below ``/auth``."""

    def __init__(self, site: PageSite, signed_in: SignedIn) -> None:
        """Sign in to the pages of ``site``."""
        self._site = site
        self._people = signed_in.people
        self._sign_ins = signed_in.sign_ins

    async def login(self, request: Request, caller: Caller) -> Response:
        """Send the browser to the provider, with what it needs to come back."""
        name = request.path_params["name"]
        next_address = next_of("/" + request.query_params.get("next", "")) or "sessions"
        try:
            url, attempt, kept = await self._sign_ins.begin(name, next_address)
        except SignInError as exc:
            return await self._refused(request, caller, exc, name)
        answer = redirect(url)
        self._set_cookie(answer, self._site.cookies.attempt + attempt, kept, _ATTEMPT_LASTS)
        older = [cookie for cookie in request.cookies if cookie.startswith(self._site.cookies.attempt)]
        for cookie in older[: max(0, len(older) - _MAX_ATTEMPTS + 1)]:
            self._delete_cookie(answer, cookie)
        return answer

    async def callback(self, request: Request, caller: Caller) -> Response:
        """Take the provider's answer, and begin a session."""
        name, prefix = request.path_params["name"], self._site.cookies.attempt
        kept = {
            cookie.removeprefix(prefix): value
            for cookie, value in request.cookies.items()
            if cookie.startswith(prefix)
        }
        try:
            user, next_address, identity_token = await self._sign_ins.finish(
                name, request.query_params.multi_items(), kept
            )
            agent = request.headers.get("user-agent", "")
            secret = await self._people.begin_session(user, name, caller.address, agent)
            # Never the session that the browser had before: another may have put it there.
            await end_session(self._site, request, self._people)
        except SignInError as exc:
            return await self._refused(request, caller, exc, name)
        except DatabaseError as exc:
            logger.warning("nobody can sign in", reason=str(exc))
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, "Storage unavailable", retry_after=5) from exc
        answer = redirect(f"../../{next_address}")
        if self._site.seal is not None:
            self._set_cookie(answer, self._site.cookies.session, self._site.seal.seal(secret), MAX_AGE)
            kept_token = identity_token if len(identity_token) <= _LONGEST_HINT else ""
            sealed = self._site.seal.seal(f"{_SIGNED_IN_BY}{name} {kept_token}")
            # Not sent along from other sites: none can sign anybody out at the provider.
            self._set_cookie(answer, self._site.cookies.signed_in_by, sealed, MAX_AGE, same_site="strict")
        self._delete_cookie(answer, prefix + _attempt(request))
        self._site.service.audit.done(Action.SIGN_IN, as_user(user, caller), provider=name)
        return answer

    async def _refused(self, request: Request, caller: Caller, error: SignInError, name: str) -> Response:
        logger.warning("a sign-in failed", provider=name[:40], reason=error.detail or error.sentence)
        self._site.service.audit.refused(Action.SIGN_IN, caller, ErrorCode.UNAUTHORIZED)
        answer = await self._site.tell(
            request, "You are not signed in", error.sentence, error.status, (("Sign in", "sign-in"),)
        )
        if attempt := _attempt(request):
            self._delete_cookie(answer, self._site.cookies.attempt + attempt)
        return answer

    async def signed_out(self, request: Request, _caller: Caller) -> Response:
        """Return what is shown to who has signed out, with the way to do so at the provider."""
        found = self._signed_in_by(request)
        links: tuple[tuple[str, str], ...] = ()
        if found is not None and await self._sign_ins.logout_url(*found) is not None:
            labels = {each.name: each.label for each in self._sign_ins.providers}
            links = ((f"Sign out of {labels[found[0]]}, too", "auth/logout/provider"),)
        frame = self._site.frame(request, ANONYMOUS, "You are signed out")
        draw = partial(
            self._site.pages.notice,
            frame,
            "This browser is no longer signed in here.",
            links=links,
            next_address="sessions",
            providers=self._site.providers,
        )
        return html_answer(request, await self._site.draw(request, draw), 200)

    async def logout_at_provider(self, request: Request, _caller: Caller) -> Response:
        """Send a browser that has signed out here to where it does so at the provider."""
        found = self._signed_in_by(request)
        url = await self._sign_ins.logout_url(*found) if found is not None else None
        answer = redirect("../../sign-in" if url is None else url)
        self._delete_cookie(answer, self._site.cookies.signed_in_by)
        return answer

    async def ended_by_provider(self, request: Request, caller: Caller) -> Response:
        """End the sessions of who has signed out at the provider (Back-Channel Logout 1.0)."""
        name = request.path_params["name"]
        try:
            form = await read_form(request)
            user = await self._sign_ins.end_by_provider(name, form.get("logout_token", ""))
        except SignInError as exc:
            logger.warning(
                "a provider's logout was refused", provider=name[:40], reason=exc.detail or exc.sentence
            )
            self._site.service.audit.refused(Action.SIGN_OUT, caller, ErrorCode.UNAUTHORIZED)
            return _told({"error": "invalid_request", "error_description": exc.sentence}, 400)
        except DatabaseError as exc:
            logger.warning("nobody can be signed out", reason=str(exc))
            return _told({"error": "server_error", "error_description": "Storage unavailable"}, 503)
        if user is not None:
            self._site.service.audit.done(Action.SIGN_OUT, as_user(user, caller), provider=name)
        return _told({}, 200)

    def _signed_in_by(self, request: Request) -> tuple[str, str] | None:
        """Return by which provider the browser has signed in, and the identity token that it got."""
        sealed = request.cookies.get(self._site.cookies.signed_in_by, "")
        opened = self._site.seal.open(sealed) if self._site.seal is not None and sealed else None
        if opened is None or not opened.startswith(_SIGNED_IN_BY):
            return None
        name, _, token = opened.removeprefix(_SIGNED_IN_BY).partition(" ")
        return name, token

    def _set_cookie(
        self,
        answer: Response,
        name: str,
        value: str,
        max_age: int,
        *,
        same_site: Literal["lax", "strict"] = "lax",
    ) -> None:
        cookies = self._site.cookies
        answer.set_cookie(
            name,
            value,
            max_age=max_age,
            path=cookies.path(),
            secure=cookies.is_secure,
            httponly=True,
            samesite=same_site,  # lax: the provider leads back from its own site
        )

    def _delete_cookie(self, answer: Response, name: str) -> None:
        cookies = self._site.cookies
        answer.delete_cookie(
            name, path=cookies.path(), secure=cookies.is_secure, httponly=True, samesite="lax"
        )


async def end_session(site: PageSite, request: Request, people: People) -> User | None:
    """End the session whose cookie the browser has; return whose it was, if there was one."""
    sealed = request.cookies.get(site.cookies.session, "")
    secret = site.seal.open(sealed) if site.seal is not None and sealed else None
    if secret is None:
        return None
    from rpcshare.auth.people import session_hash  # noqa: PLC0415 -- nobody has a session without it

    found = await people.find_session(session_hash(secret))
    if found is None:
        return None
    session, user = found
    await people.end_sessions(user.id, session.id)
    return user


def as_user(user: User, caller: Caller) -> Caller:
    """Return the user as a caller from where ``caller`` is, for the audit log."""
    return Caller(
        user.id, address=caller.address, source=user_source(user.organization), user=user.caller_user
    )


def _told(content: dict[str, str], status: int) -> Response:
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


def _attempt(request: Request) -> str:
    from rpcshare.auth.sign_in import attempt_of  # noqa: PLC0415 -- likewise

    return attempt_of(request.query_params.get("state", ""))
