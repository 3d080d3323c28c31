"""Signing in with a provider, and out: what leads a browser there and back, and gives it a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from rpcshare.auth.audit import Action
from rpcshare.auth.caller import Caller
from rpcshare.auth.cookies import MAX_AGE
from rpcshare.auth.provider_errors import SignInError
from rpcshare.auth.subject_sources import user_source
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.web.refusals import next_of
from rpcshare.server.web.responses import redirect
from rpcshare.structured_log import structlog

if TYPE_CHECKING:
    from rpcshare.auth.allowances import Allowances
    from rpcshare.auth.organization_audit import OrganizationAudit
    from rpcshare.auth.people import People
    from rpcshare.auth.sign_in import SignIns
    from rpcshare.auth.user_callers import UserCallers
    from rpcshare.server.web.site import PageSite

__all__ = ["SignedIn", "UserSignIn", "end_session"]

logger = structlog.get_logger("rpcshare.server")

_ATTEMPT_LASTS = 600  # seconds
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
            user, next_address = await self._sign_ins.finish(name, request.query_params.multi_items(), kept)
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
        self._delete_cookie(answer, prefix + _attempt(request))
        as_user = Caller(
            user.id, address=caller.address, source=user_source(user.organization), user=user.caller_user
        )
        self._site.service.audit.done(Action.SIGN_IN, as_user, provider=name)
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

    def _set_cookie(self, answer: Response, name: str, value: str, max_age: int) -> None:
        cookies = self._site.cookies
        answer.set_cookie(
            name,
            value,
            max_age=max_age,
            path=cookies.path(),
            secure=cookies.is_secure,
            httponly=True,
            samesite="lax",  # the provider leads back from its own site
        )

    def _delete_cookie(self, answer: Response, name: str) -> None:
        cookies = self._site.cookies
        answer.delete_cookie(
            name, path=cookies.path(), secure=cookies.is_secure, httponly=True, samesite="lax"
        )


async def end_session(site: PageSite, request: Request, people: People) -> None:
    """End the session whose cookie the browser has, if there is one."""
    sealed = request.cookies.get(site.cookies.session, "")
    secret = site.seal.open(sealed) if site.seal is not None and sealed else None
    if secret is None:
        return
    from rpcshare.auth.people import session_hash  # noqa: PLC0415 -- nobody has a session without it

    found = await people.find_session(session_hash(secret))
    if found is not None:
        session, user = found
        await people.end_sessions(user.id, session.id)


def _attempt(request: Request) -> str:
    from rpcshare.auth.sign_in import attempt_of  # noqa: PLC0415 -- likewise

    return attempt_of(request.query_params.get("state", ""))
