"""The list of sessions, and what can be done with one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.render.session_list import Listing, day_as_time
from rpcshare.server.web.forms import check_own_form
from rpcshare.server.web.responses import html_answer, redirect
from rpcshare.shares.page import Filters
from rpcshare.shares.search import Hit
from rpcshare.shares.search_query import NO_WORD

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite

__all__ = ["SessionPages"]

_LONGEST = {"q": 200, "owner": 300, "project": 200}  # characters
_ASKED = ("q", "owner", "project", "live", "private", "since", "until", "order", "before")
_PER_PAGE = 30
_HITS = 10

_NOTICES = {"deleted": "The session is deleted.", "signed-out": "You have signed out."}


class SessionPages:
    """All sessions for an admin, and everybody's own for themselves."""

    def __init__(self, site: PageSite) -> None:
        self._site = site

    async def everybody(self, request: Request, caller: Caller) -> Response:
        """Return the list of the sessions that the caller may list."""
        return await self._list(
            request, caller, "sessions", is_own=not caller.has(Scope.ADMIN) and caller.user is None
        )

    async def own(self, request: Request, caller: Caller) -> Response:
        """Return the list of the caller's sessions."""
        return await self._list(request, caller, "my-sessions", is_own=True)

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
        row = await self._site.service.row(caller, share_id)
        frame = self._site.frame(request, caller, "Delete a session")
        return html_answer(
            request, await self._site.draw(request, lambda: self._site.pages.delete(frame, row))
        )

    async def _list(self, request: Request, caller: Caller, address: str, *, is_own: bool) -> Response:
        given = request.query_params
        asked = {name: given.get(name, "")[: _LONGEST.get(name, 20)].strip() for name in _ASKED}
        start = given.get("from", "")
        is_backwards = asked["before"] == "1"
        page = await self._site.service.list_rows(
            caller,
            is_own=is_own,
            owner=asked["owner"] or None,
            cursor=given.get("cursor") or None,
            limit=_PER_PAGE,
            query=asked["q"] or None,
            by_change=asked["order"] == "changed",
            is_backwards=is_backwards,
            filters=Filters(
                asked["project"],
                bool(asked["live"]),
                bool(asked["private"]),
                day_as_time(asked["since"]),
                day_as_time(asked["until"], is_end=True),
            ),
        )
        first = int(start) if start.isdecimal() and len(start) < 10 and given.get("cursor") else 1
        hits, problem = await self._hits(caller, asked["q"]) if first == 1 else ([], "")
        listing = Listing(
            page=page,
            address=address,
            asked=asked,
            start=max(1, first - len(page.rows)) if is_backwards else first,
            may_delete=caller.has(Scope.CREATE),
            is_of_all=not is_own and caller.has(Scope.ADMIN),
            hits=hits,
            hits_problem=problem,
            notice=_NOTICES.get(given.get("notice", ""), ""),
            now=self._site.service.now(),
            server=self._site.base_url,
        )
        frame = self._site.frame(request, caller, "Your sessions" if is_own else "Sessions")
        pages = self._site.pages
        draw = pages.session_list if "fragment" in given else pages.sessions
        return html_answer(request, await self._site.draw(request, lambda: draw(frame, listing)))

    async def _hits(self, caller: Caller, query: str) -> tuple[list[Hit], str]:
        """Return where something was said, or why that cannot be told."""
        if not query:
            return [], ""
        try:
            return (await self._site.service.search(caller, query, limit=_HITS)).hits, ""
        except ShareError as exc:
            if str(exc) == NO_WORD:
                return [], ""
            return [], f"What was said in sessions could not be searched: {exc}."


def _require_name(caller: Caller) -> None:
    if caller.subject is None:
        raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: a credential is needed")
