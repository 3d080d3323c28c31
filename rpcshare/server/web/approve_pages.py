"""The page behind a link that answers one request of an agent once, from a phone, without signing in.

The token in the address is all the right that there is. Looking at the page changes nothing, so that what
fetches links before they are opened answers nothing.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rpcshare.agents.agent import RequestState
from rpcshare.agents.linked_requests import LinkedRequest, LinkedRequests
from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.auth.origin import OriginPolicy
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.render.agents import AgentRendering
from rpcshare.server.request import READS, request_head
from rpcshare.server.web.agent_pages import answer_of
from rpcshare.server.web.responses import html_answer
from rpcshare.workspaces.caller_rights import AGENTS, unreachable

if TYPE_CHECKING:
    from rpcshare.agents.agent_services import AgentServices
    from rpcshare.server.web.site import PageSite

__all__ = ["ApprovePages"]

_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,64}")

_DONE = {"once": "It is allowed, once.", "reject": "It is rejected."}


class ApprovePages:
    """What links are for."""

    def __init__(self, site: PageSite, services: AgentServices) -> None:
        """Show as pages of ``site`` what is asked by the agents of ``services``."""
        self._site = site
        self._linked = LinkedRequests(services, site.service.audit)
        self._drawn = AgentRendering(site.pages)

    def routes(self) -> list[Route]:
        """Return the route of the page."""
        return [Route("/approve/{token}", self._site.form(self.show), methods=["GET", "POST"])]

    async def show(self, request: Request, caller: Caller) -> Response:
        """Return what is asked; or answer it."""
        try:
            linked = await self._find(request, caller)
            if linked is None:
                return await self._say(request, "There is no such link", "It may not be complete.", 404)
            if (told := _why_over(linked)) is not None:
                return await self._say(request, told, "There is nothing left to do here.", 410)
            if request.method in READS:
                return await self._page(request, linked)
            _check_form(request, self._site.origins)
            return await self._answer(request, caller, linked)
        except DatabaseError:
            raise unreachable(AGENTS) from None

    async def _find(self, request: Request, caller: Caller) -> LinkedRequest | None:
        """Return what a link is for. Links that are none count as failed authentications of an address."""
        token = request.path_params["token"]
        try:
            with self._site.authenticator.failures.attempt(caller.address, f"approve {token}"):
                return await self._found(token)
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_SECRET:
                raise
            return None

    async def _found(self, token: str) -> LinkedRequest:
        linked = await self._linked.find(token) if _TOKEN.fullmatch(token) else None
        if linked is None:
            raise ShareError(ErrorCode.INVALID_SECRET, "there is no such link")
        return linked

    async def _answer(self, request: Request, caller: Caller, linked: LinkedRequest) -> Response:
        try:
            answer, note = await answer_of(request, linked.request)
            await self._linked.answer(linked, caller, answer, note)
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            # Somebody else may have been quicker.
            now = await self._linked.find(request.path_params["token"])
            if now is not None and (told := _why_over(now)) is not None:
                return await self._say(request, told, "There is nothing left to do here.", 410)
            _, _, why = exc.message.rpartition(": ")
            return await self._page(request, linked, problem=f"{why[:1].upper()}{why[1:]}.")
        done = _DONE.get(answer, "") if isinstance(answer, str) else ""
        return await self._say(
            request, done or "It is answered.", "The agent goes on. You can close this page.", 200
        )

    async def _page(self, request: Request, linked: LinkedRequest, problem: str = "") -> Response:
        frame = self._site.frame(request, ANONYMOUS, "An agent asks")
        draft = partial(
            self._drawn.approve,
            frame,
            linked.request,
            linked.agent,
            workspace_name=linked.workspace_name,
            made_by=linked.link.made_by,
            expires_at=linked.link.expires_at,
            problem=problem,
        )
        html, _ = await self._site.draw_share(request, linked.agent.share_id, draft)
        return _private(html_answer(request, html, 400 if problem else 200))

    async def _say(self, request: Request, title: str, line: str, status: int) -> Response:
        return _private(await self._site.tell(request, title, line, status))


def _why_over(linked: LinkedRequest) -> str | None:
    """Return why nothing can be answered any more; None: it can."""
    if linked.request.state is RequestState.ANSWERED:
        return "It has been answered"
    if linked.request.state is RequestState.WITHDRAWN or linked.agent.status.is_over:
        return "Nobody waits for an answer any more"
    return "The time of this link is over" if linked.link.is_over else None


def _check_form(request: Request, origins: OriginPolicy) -> None:
    """Return if a page of our own has sent the form.

    With ``no-referrer``, a browser sends the origin ``null`` with it. Most say beside that where the form
    comes from, but not over plain HTTP. Then the token alone has to do, which another site does not know.

    Raises:
        ShareError: FORBIDDEN.
    """
    head = request_head(request)
    sites, named = head.header("sec-fetch-site"), head.header("origin")
    is_own = sites == ["same-origin"] if sites else not named or named == ["null"]
    if named and named != ["null"]:
        is_own = origins.is_own(head)
    if not is_own:
        raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: the form was not sent from a page of this server")


def _private(answer: Response) -> Response:
    """Tell the browser to show no one the address, and to keep nothing."""
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Robots-Tag"] = "noindex, nofollow"
    return answer
