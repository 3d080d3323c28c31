"""Search within a session."""

import re

import pytest

from rpcshare.render.pagination import Place, place_of
from rpcshare.render.rendering import Pages
from rpcshare.render.session_search import search_session
from rpcshare.shares.outline import Transcript
from support.drawing_shares import FRAME, NOW, Document, rendered, state_of, transcript_of
from support.sample_session import message, part, tool


def transcript_with(*texts: str, **session: object) -> Transcript:
    items = [
        {"type": "session", "data": {"id": "s", "title": "T", **session}},
        message("m1", "user"),
        part("m1", "u1", "text", text="A question"),
        message("m2", "assistant"),
        *(part("m2", f"p{number}", "text", text=text) for number, text in enumerate(texts)),
        tool("m2", "t1", "bash", {"command": "make Test"}, "all \u00fcbung passed\n"),
    ]
    return transcript_of(state_of(items))


def found(transcript: Transcript, query: str) -> list[str]:
    return [hit.part for hit in search_session(transcript, query, Place(0)).hits]


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("question", ["u1"]),
        ("QUEST", ["u1"]),
        ("alpha gamma", ["p0"]),
        ('"alpha gamma"', []),
        ('"alpha beta"', ["p0"]),
        ("make test", ["t1"]),
        ("\u00dcBUNG", ["t1"]),
        ('say "hi"', ["p1"]),
        ("back\\slash", ["p1"]),
        ("passed", ["t1"]),
        ("p0", []),
        ("messageID", []),
        ("", []),
        ("   ", []),
    ],
)
def test_all_words_are_looked_for_in_what_can_be_seen(query: str, parts: list[str]) -> None:
    transcript = transcript_with("alpha beta\ngamma", 'say "hi" to back\\slash')
    assert found(transcript, query) == parts


@pytest.mark.parametrize("query", ["strasse", "STRASSE", "Straße", "straẞe", '"der strasse"'])
@pytest.mark.parametrize("written", ["In der Straße 7", "IN DER STRASSE 7", "In der Stra\u1e9ee 7"])
def test_letters_are_the_same_that_differ_in_case_alone(query: str, written: str) -> None:
    hits = search_session(transcript_with("ßẞ" * 40 + written), query, Place(0)).hits
    assert [(hit.part, hit.found.casefold()[-7:]) for hit in hits] == [("p0", "strasse")]


def test_a_hit_tells_what_is_around_it() -> None:
    (hit,) = search_session(transcript_with("x" * 500 + " needle " + "y" * 500), "NEEDLE", Place(0)).hits
    assert hit.found == "needle"
    assert hit.before.startswith("\u2026x")
    assert len(hit.before) + len(hit.after) < 300
    assert hit.who == "Assistant"


def test_many_hits_come_on_several_pages_none_twice_and_none_missing() -> None:
    transcript = transcript_with(*(f"needle {number}" for number in range(170)))
    start, parts = Place(0), []
    for _ in range(10):
        page = search_session(transcript, "needle", start)
        parts += [hit.part for hit in page.hits]
        if not page.later:
            break
        assert len(page.hits) == 50
        place = place_of(transcript, page.later)
        assert place is not None
        start = place
    assert parts == [f"p{number}" for number in range(170)]


def test_a_search_that_takes_long_ends_and_says_where_to_go_on() -> None:
    ticks = iter(range(10_000))
    transcript = transcript_with(*("x" for _ in range(100)))
    page = search_session(transcript, "needle", Place(0), now=lambda: next(ticks) / 100)
    assert page.is_short_of_time
    assert place_of(transcript, page.later) is not None


def test_what_was_taken_back_for_good_is_not_found() -> None:
    items = [
        {
            "type": "session",
            "data": {"id": "s", "revert": {"messageID": "m2"}, "time": {"created": 1, "updated": 5}},
        },
        message("m1", "user", time={"created": 1}),
        part("m1", "p1", "text", text="needle one"),
        message("m2", "user", time={"created": 2}),
        part("m2", "p2", "text", text="needle two"),
        message("m3", "user", time={"created": 9}),
        part("m3", "p3", "text", text="needle three"),
    ]
    assert found(transcript_of(state_of(items)), "needle") == ["p1", "p3"]


def test_the_page_has_a_form_and_links_to_the_parts() -> None:
    pages, transcript = Pages(lambda: NOW), transcript_with("a <b>needle</b>")
    html = rendered(pages.search(FRAME, transcript, "needle", after="", is_fragment=False))
    page = Document(html)
    assert ("form", {"class": "search", "role": "search", "method": "get"}) in page.elements
    assert "?part=p0#p-p0" in page.all("href")
    assert "&lt;b&gt;<mark>needle</mark>&lt;/b&gt;" in html
    assert re.search(r'name="q" value="needle"', html)


def test_nothing_found_is_said() -> None:
    html = rendered(
        Pages(lambda: NOW).search(FRAME, transcript_with("x"), "needle", after="", is_fragment=True)
    )
    assert "Nothing found." in html
