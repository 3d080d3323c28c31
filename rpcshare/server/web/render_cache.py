"""Pieces of pages as HTML, drawn within bounds, and each of them once for all who look at it.

A piece that takes too long or too much is drawn again with less detail, and says so. That is remembered.
Behind pieces that have taken what their page may take, the others are drawn plain for the time being: when
the page is asked for again, the former are there.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from markupsafe import Markup

from rpcshare.render.pieces import Answer, Cause, Detail, PartPiece, Piece, Request
from rpcshare.structured_log import structlog

__all__ = ["PAGE_CHARACTERS", "PAGE_SECONDS", "DrawnPieces", "RenderCache"]

logger = structlog.get_logger("rpcshare.render")

PAGE_SECONDS = 2.0
"""CPU time of the pieces of one page. Those behind are drawn plain, and not at all once it is spent twice."""

PAGE_CHARACTERS = 8 * 2**20
"""Of HTML, likewise."""

KEPT = 16 * 2**20
"""Bytes of pieces that are kept, and of what they were made of."""

_OVERHEAD = 400  # bytes of one that is kept, beside its text
_REMEMBERED = 10_000  # pieces that cannot be drawn in full

_LESS: Final = {Detail.FULL: Detail.UNCOLOURED, Detail.UNCOLOURED: Detail.PLAIN, Detail.PLAIN: None}


class Drawing(Protocol):
    """Draws a piece for a share; :class:`~rpcshare.server.web.render_processes.RenderProcesses` do."""

    async def draw(self, share_id: str, request: Request) -> Answer:
        """Return what was drawn, or why nothing was."""


class DrawnPieces(NamedTuple):
    """The pieces of a page."""

    html: Mapping[Piece, Markup]
    is_final: bool
    """Whether they would look the same if they were drawn again."""


class _Drawn(NamedTuple):
    html: Markup
    seconds: float


class _Verdict(NamedTuple):
    """How a piece is drawn that cannot be drawn in full."""

    detail: Detail | None
    """None: not at all."""
    cause: Cause


_IN_FULL: Final = _Verdict(Detail.FULL, Cause.PAGE)


class RenderCache:
    """Draws the pieces of pages, and keeps them."""

    def __init__(
        self,
        processes: Drawing,
        omitted: Callable[[Piece, Cause], Markup],
        on_drawn: Callable[[str, Cause | None], None] | None = None,
    ) -> None:
        """Draw with ``processes``.

        Args:
            processes: draw a piece.
            omitted: returns what stands in the place of a piece that cannot be drawn.
            on_drawn: is told of each piece that is drawn: its detail, or ``omitted``, and why that is less
                than all.
        """
        self._processes = processes
        self._omitted = omitted
        self._on_drawn = on_drawn
        self._kept: OrderedDict[Piece, Markup] = OrderedDict()
        self._size = 0
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._under_way: dict[Piece, _Shared] = {}

    async def draw(self, share_id: str, pieces: list[Piece]) -> DrawnPieces:
        """Return the pieces of a page of a share."""
        html: dict[Piece, Markup] = {}
        seconds, characters, is_final = 0.0, 0, True
        for piece in pieces:
            kept = self._kept.get(piece)
            if kept is not None:
                self._kept.move_to_end(piece)
                drawn = _Drawn(kept, 0.0)
            elif (spent := max(seconds / PAGE_SECONDS, characters / PAGE_CHARACTERS)) < 1:
                drawn = await self._once(share_id, piece)
            else:
                is_final = False
                verdict = _Verdict(Detail.PLAIN if spent < 2 else None, Cause.PAGE)
                drawn, _ = await self._drawn(share_id, piece, verdict)
            html[piece] = drawn.html
            seconds += drawn.seconds
            characters += len(drawn.html)
        return DrawnPieces(html, is_final)

    async def _once(self, share_id: str, piece: Piece) -> _Drawn:
        """Return a piece, which is drawn once for all who wait for it, and not if none does any more."""
        shared = self._under_way.get(piece)
        if shared is None:
            shared = self._under_way[piece] = _Shared(asyncio.create_task(self._keep(share_id, piece)))
            shared.task.add_done_callback(lambda _: self._under_way.pop(piece, None))
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and shared.task.cancel():
                self._under_way.pop(piece, None)

    async def _keep(self, share_id: str, piece: Piece) -> _Drawn:
        digest = b""
        verdict = _IN_FULL
        if self._verdicts:
            digest = await asyncio.to_thread(_digest, piece)
            verdict = self._verdicts.get(digest, verdict)
        drawn, reached = await self._drawn(share_id, piece, verdict)
        if reached != _IN_FULL:
            self._verdicts[digest or await asyncio.to_thread(_digest, piece)] = reached
            if len(self._verdicts) > _REMEMBERED:
                self._verdicts.popitem(last=False)
        self._kept[piece] = drawn.html
        self._size += _weight(piece, drawn.html)
        while self._size > KEPT and self._kept:
            old, dropped = self._kept.popitem(last=False)
            self._size -= _weight(old, dropped)
        return drawn

    async def _drawn(self, share_id: str, piece: Piece, verdict: _Verdict) -> tuple[_Drawn, _Verdict]:
        """Return a piece with as much detail as it can be drawn, and how much that is."""
        detail, cause = verdict
        seconds = 0.0
        while detail is not None:
            why = None if detail is Detail.FULL else cause
            request = Request(piece, detail, why)
            answer = await self._processes.draw(share_id, request)
            if answer.is_accident:
                answer = await self._processes.draw(share_id, request)
            seconds += answer.seconds
            if answer.cause is None:
                self._count(detail, why)
                return _Drawn(Markup(answer.html), seconds), _Verdict(detail, cause)  # noqa: S704 -- the templates'
            detail, cause = _LESS[detail], answer.cause
            kind = "part" if isinstance(piece, PartPiece) else "file"
            logger.warning(
                "a piece of a page is drawn with less detail",
                share=share_id,
                kind=kind,
                detail="omitted" if detail is None else detail,
                cause=cause,
                **{"where": answer.where} if answer.where else {},
            )
        self._count("omitted", cause)
        return _Drawn(self._omitted(piece, cause), seconds), _Verdict(None, cause)

    def _count(self, detail: str, cause: Cause | None) -> None:
        if self._on_drawn is not None:
            self._on_drawn(detail, cause)


class _Shared:
    """A piece that is being drawn, and for how many."""

    def __init__(self, task: asyncio.Task[_Drawn]) -> None:
        self.task = task
        self.waiting = 0


def _weight(piece: Piece, html: Markup) -> int:
    return len(piece.body) + sys.getsizeof(html) + _OVERHEAD


def _digest(piece: Piece) -> bytes:
    """Return what tells the text of a piece, and how much of it is shown, wherever that is."""
    return hashlib.blake2b(piece.body, digest_size=16, salt=bytes([piece.is_whole])).digest()
