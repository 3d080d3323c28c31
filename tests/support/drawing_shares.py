"""Shares as transcripts, and pages of them, without a server."""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from html.parser import HTMLParser
from typing import TypeVar

from markupsafe import Markup

from rpcshare.render.piece_rendering import PieceRendering
from rpcshare.render.pieces import Draft, Piece
from rpcshare.render.rendering import Frame, Pages
from rpcshare.shares.outline import Transcript
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import parse_batch

__all__ = ["FRAME", "NOW", "Document", "page_of", "rendered", "state_of", "transcript_of"]

T = TypeVar("T")

NOW = 1763640005.0
"""Seconds since the epoch: soon after the last sync of a share that :func:`state_of` makes."""

FRAME = Frame(root="../", title="")


def state_of(items: Sequence[object]) -> ShareState:
    state = ShareState("everything", "ses_everything", 1763640000000)
    state.apply(parse_batch(items).items, 1763640000000)
    return state


def transcript_of(state: ShareState) -> Transcript:
    outline = state.outline
    return Transcript(
        share_id=state.share_id,
        session_id=state.session_id,
        generation="g1",
        is_public=True,
        created_at=state.created_at,
        last_updated=state.last_updated,
        sync_count=state.sync_count,
        known_since=outline.known_since,
        session=state.session,
        entries=outline.entries,
        files=outline.files,
        models=tuple(body for _, body in state.content.models.values()),
    )


def page_of(items: Sequence[object], pages: Pages | None = None) -> str:
    """Return the first page of a share that holds ``items``."""
    return rendered(
        (pages or Pages(lambda: NOW)).share(
            FRAME, transcript_of(state_of(items)), at="", until="", is_end=False
        )
    )


def rendered(draft: Draft[T] | None) -> T:
    """Return a page whose pieces are drawn in this process, without a limit."""
    assert draft is not None
    return draft.render({piece: _drawn(piece) for piece in draft.pieces})


@cache
def _drawing() -> PieceRendering:
    return PieceRendering()


@lru_cache(maxsize=1000)
def _drawn(piece: Piece) -> Markup:
    return _drawing().draw(piece)


class Document(HTMLParser):
    """What a page is made of: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self._text))

    def all(self, name: str) -> list[str]:
        """Return every value of an attribute."""
        return [attributes[name] for _, attributes in self.elements if name in attributes]
