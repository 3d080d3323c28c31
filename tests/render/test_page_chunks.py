"""Long sessions, a page at a time."""

import re
import tracemalloc

from rpcshare.render.pagination import MAX_PARTS, Place, chunk_of, place_of
from rpcshare.render.rendering import Pages
from rpcshare.shares.syncdata import parse_batch
from support.drawing_shares import FRAME, page_of, rendered, state_of, transcript_of
from support.sample_session import message, part


def long_session(messages: int, parts: int, text: str = "hello") -> list[object]:
    items: list[object] = []
    for number in range(messages):
        items.append(message(f"m{number}", "user" if number % 2 == 0 else "assistant"))
        items += [part(f"m{number}", f"p{number}-{index}", "text", text=text) for index in range(parts)]
    return items


def walk(items: list[object], direction: str) -> list[str]:
    """Return the ids of all parts in the order in which following the links shows them."""
    pages = Pages()
    transcript = transcript_of(state_of(items))
    pieces: list[list[str]] = []
    at = until = ""
    is_end = direction == "earlier"
    while True:
        html = rendered(pages.chunk(transcript, at=at, until=until, is_end=is_end))
        assert html is not None
        pieces.append(re.findall(r'id="p-([^"]+)"', html))
        assert len(pieces[-1]) <= MAX_PARTS
        name = "from" if direction == "later" else "until"
        link = re.search(rf'href="\?{name}=([^"&]+)" data-load="{direction}"', html)
        is_end = False
        if link is None:
            break
        at, until = (link[1], "") if direction == "later" else ("", link[1])
    if direction == "earlier":
        pieces.reverse()
    return [each for piece in pieces for each in piece]


def test_following_the_links_shows_every_part_once_in_order() -> None:
    items = long_session(40, 7)
    expected = [item["data"]["id"] for item in items if item["type"] == "part"]  # type: ignore[index]
    assert walk(items, "later") == expected
    assert walk(items, "earlier") == expected


def test_one_message_of_very_many_parts_is_split_too() -> None:
    items = long_session(1, 333)
    expected = [f"p0-{index}" for index in range(333)]
    assert walk(items, "later") == expected
    assert walk(items, "earlier") == expected


def test_large_parts_make_short_pages() -> None:
    html = page_of(long_session(50, 1, text="word " * 3000))
    assert len(re.findall(r'id="p-', html)) < 10
    assert len(html) < 300_000


def test_a_permalink_begins_at_its_message() -> None:
    items = long_session(100, 3)
    html = rendered(Pages().chunk(transcript_of(state_of(items)), at="m60", until="", is_end=False))
    assert html is not None
    assert re.findall(r'id="(m-[^"]+)"', html)[0] == "m-m60"
    assert 'data-load="earlier"' in html


def test_a_place_that_is_not_there_is_none() -> None:
    transcript = transcript_of(state_of(long_session(3, 1)))
    assert place_of(transcript, "m1") == Place(1, 0)
    assert place_of(transcript, "m1.1") == Place(1, 1)
    assert place_of(transcript, "m1.99") == Place(1, 1)
    for cursor in ("nowhere", "m1.x", "", ".", "m1.", "m" * 5000):
        assert place_of(transcript, cursor) is None


def test_an_empty_share_has_an_empty_chunk() -> None:
    chunk = chunk_of(transcript_of(state_of([])))
    assert (chunk.runs, chunk.earlier, chunk.later) == ([], "", "")
    assert "Nothing has been said yet." in page_of([])


def test_an_update_holds_what_changed_and_no_more() -> None:
    state = state_of(long_session(100, 3))
    before = transcript_of(state)
    state.apply(parse_batch([part("m50", "p50-1", "text", text="newer"), message("m100", "user")]).items, 1)
    update = rendered(Pages().update(transcript_of(state), before.sync_count))
    assert re.findall(r'id="(p-[^"]+)"', update.messages) == ["p-p50-1"]
    assert re.findall(r'<article[^>]* id="(m-[^"]+)"', update.messages) == ["m-m50", "m-m100"]
    assert 'data-after="m99"' in update.messages
    assert not update.is_reset


def test_an_update_since_nobody_knows_when_is_a_reset() -> None:
    state = state_of(long_session(3, 1))
    assert transcript_of(state).known_since == 1
    assert rendered(Pages().update(transcript_of(state), 0)).is_reset
    assert rendered(Pages().update(transcript_of(state), 99)).is_reset


def test_an_update_of_very_much_is_a_reset() -> None:
    state = state_of([])
    before = transcript_of(state).sync_count
    state.apply(parse_batch(long_session(100, 5)).items, 1)
    assert rendered(Pages().update(transcript_of(state), before)).is_reset


def test_twenty_thousand_parts_cost_what_is_shown_of_them() -> None:
    state = state_of(long_session(4000, 5, text="A sentence of some length, and another. " * 5))
    pages = Pages()
    tracemalloc.start()
    try:
        html = rendered(pages.share(FRAME, transcript_of(state), at="", until="", is_end=False))
        end = rendered(pages.chunk(transcript_of(state), at="", until="", is_end=True))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert html is not None
    assert end is not None
    assert len(re.findall(r'id="p-', html)) == MAX_PARTS
    assert "p3999-4" in end
    assert len(html) < 300_000
    assert peak < 30_000_000


def test_many_files_are_turned_over() -> None:
    diffs = [{"file": f"f{number}.py", "patch": "@@ -1 +1 @@\n-a\n+b"} for number in range(150)]
    transcript = transcript_of(state_of([{"type": "session_diff", "data": diffs}]))
    pages, seen, start = Pages(), [], 1
    while start:
        html = rendered(pages.changes(FRAME, transcript, is_split=False, file=None, start=start))
        assert html is not None
        seen += re.findall(r'id="fh-\d+">(f\d+\.py)<', html)
        link = re.search(r"start=(\d+)", html)
        start = int(link[1]) if link else 0
    assert seen == [f"f{number}.py" for number in range(150)]
