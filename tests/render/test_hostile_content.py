"""Hostile content in every place of a page: what pages are made of (tests/browser: what happens then)."""

import pytest

from rpcshare.render.latex import MATHML_TAGS
from rpcshare.render.rendering import Pages
from rpcshare.render.session_list import Listing
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.page import RowPage
from support.drawing_shares import FRAME, Document, rendered, state_of, transcript_of
from support.hostile_strings import HOSTILE, hostile_session

TAGS = MATHML_TAGS | frozenset(
    (
        *(
            "html",
            "head",
            "meta",
            "title",
            "link",
            "script",
            "body",
            "a",
            "svg",
            "symbol",
            "path",
            "use",
            "header",
            "form",
        ),
        *(
            "span",
            "button",
            "nav",
            "ol",
            "li",
            "div",
            "main",
            "h1",
            "dl",
            "dt",
            "dd",
            "time",
            "article",
            "h2",
        ),
        *(
            "details",
            "summary",
            "p",
            "ul",
            "pre",
            "code",
            "table",
            "tbody",
            "thead",
            "colgroup",
            "col",
            "tr",
            "td",
            "th",
        ),
        *(
            "mark",
            "strong",
            "em",
            "s",
            "blockquote",
            "hr",
            "br",
            "h3",
            "h4",
            "h5",
            "h6",
            "figure",
            "img",
            "footer",
        ),
        *("section", "input", "label", "aside", "sup", "dialog", "kbd", "select", "option", "small"),
    )
)
"""None of them runs anything, or loads anything but from its own site."""
ASKED = ("q", "owner", "project", "live", "private", "since", "until", "order", "before", "cursor")
ADDRESSES = ("href", "src", "action")


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages()


def test_the_corpus_is_large_enough() -> None:
    assert len(set(HOSTILE)) >= 100


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_no_place_of_a_page_is_careless(pages: Pages, number: int) -> None:
    state = state_of(hostile_session(HOSTILE[number], number))
    transcript = transcript_of(state)
    row = CatalogueRow(state.index(), "g1", HOSTILE[number])
    listing = Listing(
        page=RowPage([row], 1, has_more=True, by_change=False),
        address="sessions",
        asked=dict.fromkeys(ASKED, HOSTILE[number]),
        start=1,
        may_delete=True,
        is_of_all=True,
    )
    drawn = [
        rendered(pages.share(FRAME, transcript, at="", until="", is_end=False)),
        rendered(pages.part(FRAME, transcript, f"prt_{number}_1")),
        rendered(pages.changes(FRAME, transcript, is_split=False, file=None)),
        rendered(pages.changes(FRAME, transcript, is_split=True, file=None)),
        rendered(pages.search(FRAME, transcript, HOSTILE[number], after="", is_fragment=False)),
        pages.sessions(FRAME, listing),
        pages.delete(FRAME, row),
    ]
    for html in drawn:
        assert html is not None
        page = Document(html)
        scripts = [attributes for tag, attributes in page.elements if tag == "script"]
        assert [attributes["src"] for attributes in scripts] == [
            f"../static/{name}" for name in (pages.assets.theme, pages.assets.script)
        ]
        for tag, attributes in page.elements:
            assert tag in TAGS
            assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset")]
            for name in ADDRESSES:
                address = attributes.get(name, "").strip().lower()
                if tag in ("img", "script", "link", "form", "use"):
                    assert "evil.example" not in address
                assert not address.startswith(("javascript:", "vbscript:", "data:text", "data:,", "//"))
                if tag == "a" and address.startswith("http"):
                    assert attributes["rel"] == "noopener noreferrer nofollow"
