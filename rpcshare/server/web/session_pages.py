"""The list of sessions, and what can be done with one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.render.rendering import Listing
from rpcshare.server.web.forms import check_own_form
from rpcshare.server.web.responses import html_answer, redirect
from rpcshare.shares.page import Page

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite

__all__ = ["SessionPages"]

_MAX_QUERY = 200  # characters
_PER_PAGE = 30

_NOTICES = {"deleted": "The session is deleted.", "signed-out": "You have signed out."}


class SessionPages:
    """All sessions for an admin, and everybody's own for themselves."""

    def __init__(self, site: PageSite) -> None:
        self._site = site

    async def everybody(self, request: Request, caller: Caller) -> Response:
        """Return the list of all sessions."""
        return await self._list(request, caller, "sessions", "Sessions", self._site.service.list_all)

    async def own(self, request: Request, caller: Caller) -> Response:
        """Return the list of the caller's sessions."""
        return await self._list(request, caller, "my-sessions", "Your sessions", self._site.service.list_own)

    async def delete(self, request: Request, caller: Caller) -> Response:
        """Ask whether to delete a session; or do it, when the answer comes."""
        share_id = request.path_params["share_id"]
        if request.method == "POST":
            check_own_form(request, self._site.origins)
            _require_name(caller)
            await self._site.service.delete(caller, share_id, None)
            home = self._site.frame(request, caller).home
            return redirect(f"../../{home}?notice=deleted")
        _require_name(caller)
        await self._site.service.check_write(caller, share_id, None)
        index = await self._site.service.metadata(caller, share_id)
        frame = self._site.frame(request, caller, "Delete a session")
        return html_answer(
            request, await self._site.draw(request, lambda: self._site.pages.delete(frame, index))
        )

    async def _list(
        self,
        request: Request,
        caller: Caller,
        address: str,
        title: str,
        listed: Callable[..., Awaitable[Page]],
    ) -> Response:
        query = request.query_params.get("q", "")[:_MAX_QUERY].strip()
        cursor = request.query_params.get("cursor", "")
        by_change = request.query_params.get("order") == "changed"
        page = await listed(
            caller, cursor=cursor or None, limit=_PER_PAGE, query=query or None, by_change=by_change
        )
        listing = Listing(
            page,
            query,
            cursor,
            address,
            may_delete=caller.has(Scope.CREATE),
            by_change=by_change,
            notice=_NOTICES.get(request.query_params.get("notice", ""), ""),
        )
        frame = self._site.frame(request, caller, title)
        pages = self._site.pages
        draw = pages.session_list if "fragment" in request.query_params else pages.sessions
        return html_answer(request, await self._site.draw(request, lambda: draw(frame, listing)))


def _require_name(caller: Caller) -> None:
    if caller.subject is None:
        raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: a credential is needed")
