"""The pages of one share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, TypeVar

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.render.pieces import Draft
from rpcshare.render.rendering import Frame
from rpcshare.render.session_search import MAX_QUERY
from rpcshare.server.web.relatives import RelativeFinder
from rpcshare.server.web.responses import etag, html_answer, not_modified
from rpcshare.shares.outline import Transcript

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite

__all__ = ["SharePages"]

T = TypeVar("T")

_CLIENT_GONE = 499
"""The status that is counted for a client that did not wait for its answer: nginx's."""


class SharePages:
    """A session, its changes, and single parts of it."""

    def __init__(self, site: PageSite) -> None:
        self._site = site
        self._relatives = RelativeFinder(site.service)

    async def share(self, request: Request, caller: Caller) -> Response:
        """Return a page of a session, or its messages alone, or what its files have become.

        The query tells where it begins (``at`` or ``from``, with a cursor), before which it ends (``until``),
        or that it shows the end (``end``); ``view=changes`` shows files, ``layout=split`` in two columns.
        """
        transcript = await self._transcript(request, caller)
        frame = self._frame(request, caller, transcript)
        panel = await self._panel(request, caller, transcript)
        tag = self._tag(transcript, frame) if panel is None else None
        if tag is not None and (answer := not_modified(request, tag)) is not None:
            return answer
        return await self._answer(
            request, transcript, lambda: self._draft(request, frame, transcript, panel), tag
        )

    async def part(self, request: Request, caller: Caller) -> Response:
        """Return the page of one part, of which all is shown."""
        transcript = await self._transcript(request, caller)
        frame = self._frame(request, caller, transcript)
        tag = self._tag(transcript, frame)
        if (answer := not_modified(request, tag)) is not None:
            return answer
        anchor = request.path_params["part"]
        return await self._answer(
            request, transcript, lambda: _found(self._site.pages.part(frame, transcript, anchor)), tag
        )

    async def _panel(self, request: Request, caller: Caller, transcript: Transcript) -> Draft[Markup] | None:
        """Return what steers an agent, if the session is one's that is in the caller's hands."""
        pages, query = self._site.agent_pages, request.query_params
        if pages is None or query.get("view") or "q" in query or "fragment" in query:
            return None
        return await pages.panel_of(request, caller, transcript.session_id)

    async def _transcript(self, request: Request, caller: Caller) -> Transcript:
        transcript = await self._site.service.transcript(caller, request.path_params["share_id"])
        return await self._relatives.find(caller, transcript)

    async def _answer(
        self, request: Request, transcript: Transcript, draft: Callable[[], Draft[str]], tag: str | None
    ) -> Response:
        drawing = self._site.draw_share(request, transcript.share_id, draft)
        try:
            html, is_final = await _unless_gone(request, drawing)
        except _GoneError:
            return Response(status_code=_CLIENT_GONE)
        return html_answer(request, html, tag=tag if is_final else None)

    def _draft(
        self, request: Request, frame: Frame, transcript: Transcript, panel: Draft[Markup] | None
    ) -> Draft[str]:
        query, pages = request.query_params, self._site.pages
        if query.get("view") == "changes":
            file, start = _number(query.get("file", "")), _number(query.get("start", ""))
            is_split = query.get("layout") == "split"
            draft = pages.changes(frame, transcript, is_split=is_split, file=file, start=start or 1)
            return draft or _found(pages.changes(frame, transcript, is_split=is_split, file=None))
        if "q" in query:
            return pages.search(
                frame,
                transcript,
                query["q"][:MAX_QUERY],
                after=query.get("after", ""),
                is_fragment="fragment" in query,
            )
        at = query.get("at") or query.get("from") or ""
        if part := query.get("part"):
            at = pages.place_of_part(transcript, part) or at
        until, is_end = query.get("until", ""), "end" in query
        # A message may be gone that a link leads to: then the session is shown from its start.
        if "fragment" in query:
            draft = pages.chunk(transcript, at=at, until=until, is_end=is_end)
            return draft or _found(pages.chunk(transcript, at="", until="", is_end=False))
        draft = pages.share(frame, transcript, at=at, until=until, is_end=is_end, panel=panel)
        return draft or _found(pages.share(frame, transcript, at="", until="", is_end=False, panel=panel))

    def _frame(self, request: Request, caller: Caller, transcript: Transcript) -> Frame:
        frame = self._site.frame(request, caller)
        canonical = f"{self._site.base_url}/share/{transcript.share_id}"
        return Frame(
            root=frame.root,
            title="",
            canonical=canonical,
            is_public=transcript.is_public,
            subject=frame.subject,
            home=frame.home,
        )

    def _tag(self, transcript: Transcript, frame: Frame) -> str:
        pages = self._site.pages
        quiet, assets = pages.is_quiet(transcript), pages.assets
        refusal = transcript.last_refusal
        shown = (transcript.generation, transcript.sync_count, frame, assets.style, assets.script, quiet)
        related = (transcript.children, transcript.parent)
        return etag(*shown, *([] if refusal is None else [refusal]), *([related] if any(related) else []))


def _found(draft: Draft[str] | None) -> Draft[str]:
    if draft is None:
        raise ShareError(ErrorCode.SHARE_NOT_FOUND, "There is no such part")
    return draft


class _GoneError(Exception):
    """Nobody waits for the page any more."""


async def _unless_gone(request: Request, drawing: Coroutine[object, object, T]) -> T:
    """Return what ``drawing`` does, which is cancelled when the client is gone.

    Raises:
        _GoneError: it is.
    """
    task, gone = asyncio.create_task(drawing), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _GoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else None
