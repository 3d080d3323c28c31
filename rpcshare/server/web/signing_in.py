"""Signing in and out, and opening a share by its password: what leaves a cookie with the browser."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from rpcshare.auth.audit import Action
from rpcshare.auth.caller import Caller
from rpcshare.auth.cookies import MAX_AGE
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.request import READS
from rpcshare.server.users_rpc import database_failures
from rpcshare.server.web.forms import check_own_form, read_form
from rpcshare.server.web.refusals import next_of
from rpcshare.server.web.responses import html_answer, redirect
from rpcshare.server.web.user_sign_in import as_user, end_session

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite

__all__ = ["SigningIn"]


class SigningIn:
    """The forms that ask for a token or a password."""

    def __init__(self, site: PageSite) -> None:
        self._site = site

    async def sign_in(self, request: Request, caller: Caller) -> Response:
        """Take a token, or the secret of the link that the start prints; leave it with the browser."""
        if request.method in READS:
            return await self._page(request, caller)
        check_own_form(request, self._site.origins)
        form = await read_form(request)
        token, next_address = form.get("token", "").strip(), form.get("next", "")
        if self._site.seal is None:
            raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: signing in is not possible here")
        if once := form.get("once", ""):
            token = (self._site.link.take(once) if self._site.link is not None else None) or ""
            if not token:
                error = ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the link is used or too old")
                return await self._site.refuse(
                    request, caller, error, "That link has been used, or its 10 minutes are over."
                )
        try:
            known = await self._site.authenticator.caller_of_token(token, address=caller.address)
        except ShareError as exc:
            if exc.code is not ErrorCode.UNAUTHORIZED:
                raise
            return await self._site.refuse(request, caller, exc, "That token is not valid.")
        if known.subject is None:
            error = ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the token is nobody's")
            return await self._site.refuse(
                request, caller, error, "That token opens a session, not the list."
            )
        next_address = next_of("/" + next_address) or self._site.frame(request, known).home
        answer = redirect(next_address)
        answer.set_cookie(
            self._site.cookies.session,
            self._site.seal.seal(token),
            max_age=MAX_AGE,
            path=self._site.cookies.path(),
            secure=self._site.cookies.is_secure,
            httponly=True,
            samesite="lax",
        )
        return answer

    async def _page(self, request: Request, caller: Caller) -> Response:
        """Return the form. A script sends it at once if the address has the secret of a link."""
        draw = partial(
            self._site.pages.notice,
            self._site.frame(request, caller, "Sign in"),
            has_sign_in=self._site.seal is not None,
            next_address="sessions",
            providers=self._site.providers,
        )
        return html_answer(request, await self._site.draw(request, draw), 200)

    async def sign_out(self, request: Request, caller: Caller) -> Response:
        """End the session of a user, and take the cookie away."""
        check_own_form(request, self._site.origins)
        user = None
        if self._site.signed_in is not None:
            with database_failures():
                user = await end_session(self._site, request, self._site.signed_in.people)
        if user is not None:
            self._site.service.audit.done(Action.SIGN_OUT, as_user(user, caller))
        root = "../" if request.scope["path"].startswith("/auth/") else ""
        answer = redirect(root + ("signed-out" if user is not None else "sessions"))
        answer.delete_cookie(
            self._site.cookies.session,
            path=self._site.cookies.path(),
            secure=self._site.cookies.is_secure,
            httponly=True,
            samesite="lax",
        )
        return answer

    async def unlock(self, request: Request, caller: Caller) -> Response:
        """Take a share's password, and leave a right to read it with the browser in a cookie."""
        check_own_form(request, self._site.origins)
        share_id = request.path_params["share_id"]
        form = await read_form(request)
        try:
            view = await self._site.service.unlock(caller, share_id, form.get("password", ""))
        except ShareError as exc:
            if exc.code is not ErrorCode.UNAUTHORIZED:
                raise
            return await self._site.refuse(request, caller, exc, "That password is not right.")
        answer = redirect(f"../{share_id}")
        cookies = self._site.cookies
        for path in (cookies.path(share_id), cookies.path_of_files(share_id)):
            answer.set_cookie(
                cookies.view(share_id),
                view.token,
                max_age=max(1, view.expires_at // 1000 - int(time.time())),
                path=path,
                secure=cookies.is_secure,
                httponly=True,
                samesite="lax",
            )
        return answer
