"""Every kind of part, as a page shows it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rpcshare.render.rendering import Pages
from support.drawing_shares import FRAME, NOW, Document, page_of, rendered, state_of, transcript_of
from support.sample_session import SAMPLE, image_url, message, part, tool

TRAFFIC = Path(__file__).parent.parent / "fixtures" / "opencode-share-traffic.jsonl"


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages(lambda: NOW)


def drawn(pages: Pages, *items: dict[str, object]) -> Document:
    return Document(page_of([message("m1", "assistant"), *items], pages))


def element(html: str, part_id: str) -> str:
    """Return the HTML of a part, up to the next."""
    start = html.index(f'id="p-{part_id}"')
    return re.split(r'<div class="part |<footer', html[start:])[0]


def in_sample(pages: Pages, part_id: str) -> str:
    return element(page_of(SAMPLE, pages), part_id)


SAID = {
    "prt_0101": "Please find out why",
    "prt_0102": '<img src="data:image/png;base64,',
    "prt_0103": "report.csv",
    "prt_0104": "added to the prompt",
    "prt_0105": "@build",
    "prt_0202": "Thought",
    "prt_0203": "look at how the total is computed",
    "prt_0204": "1 of 4 done",
    "prt_0205": "2 matches",
    "prt_0206": "**/*.py",
    "prt_0207": "tests/",
    "prt_0208": "src/ledger.py",
    "prt_0302": '<span class="k">raise</span> <span class="ne">ValueError</span>',
    "prt_0303": "Error: x",
    "prt_0304": "Exit status 1",
    "prt_0305": 'href="https://docs.python.org/3/library/decimal.html"',
    "prt_0306": "<strong>one more</strong>",
    "prt_0307": "tracker find issue",
    "prt_0308": "Lyon",
    "prt_0309": "Which currency is the default?",
    "prt_0310": "attempt 2",
    "prt_0311": "File not found",
    "prt_0312": "2 files changed",
    "prt_0313": "59a1ba604d",
    "prt_0314": "Review the change",
    "prt_0315": "hologram",
    "prt_0316": '<span class="kn">from</span>',
    "prt_0601": "Context compacted automatically, because the context was full",
    "prt_1001": "line 2",
    "prt_1002": "waiting",
}


@pytest.mark.parametrize("part_id", SAID)
def test_a_part_of_the_sample_says_what_it_holds(pages: Pages, part_id: str) -> None:
    state = state_of(SAMPLE)
    transcript = transcript_of(state)
    html = rendered(pages.share(FRAME, transcript, at="", until="", is_end=False))
    assert html is not None
    assert SAID[part_id] in element(html, part_id)


def test_a_tool_shows_its_status_and_how_long_it_took(pages: Pages) -> None:
    assert ">1.2 s<" in in_sample(pages, "prt_0205")
    assert ">failed<" in in_sample(pages, "prt_0311")
    assert ">running<" in in_sample(pages, "prt_1001")


def test_file_names_are_seen_from_the_session_s_directory(pages: Pages) -> None:
    assert "/home/dev/ledger/src" not in in_sample(pages, "prt_0302")


def test_numbers_of_lines_are_taken_off_what_was_read(pages: Pages) -> None:
    html = in_sample(pages, "prt_0208")
    assert 'data-first="10"' in html
    assert "00010|" not in html


def test_what_a_terminal_would_swallow_is_not_shown(pages: Pages) -> None:
    assert "[32m" not in in_sample(pages, "prt_0304")


def test_a_progress_bar_shows_its_last_state(pages: Pages) -> None:
    page = drawn(pages, tool("m1", "p1", "bash", {"command": "x"}, "10%\r50%\r100%\r\ndone"))
    assert "100% done" in page.text
    assert "50%" not in page.text


def test_a_message_shows_model_tokens_cost_and_duration(pages: Pages) -> None:
    page = Document(page_of(SAMPLE, pages))
    assert "1.8k in · 502 out · 13.2k cached · $0.0312 · 8.4 s" in page.text


def test_the_session_s_own_totals_come_before_sums(pages: Pages) -> None:
    tokens = {"input": 1200, "output": 34, "reasoning": 0, "cache": {"read": 0, "write": 0}}
    session: dict[str, object] = {
        "type": "session",
        "data": {"id": "s", "title": "T", "tokens": tokens, "cost": 2.5},
    }
    page = drawn(pages, session)
    assert "1.2k in, 34 out" in page.text
    assert "$2.50" in page.text


def test_an_answer_that_was_stopped_and_one_that_failed_differ(pages: Pages) -> None:
    text = Document(page_of(SAMPLE, pages)).text
    assert "Stopped by the user" in text
    assert "The provider answered with an error (529): Overloaded" in text


def test_all_of_the_recorded_traffic_is_drawn(pages: Pages) -> None:
    shares: dict[str, list[Any]] = {}
    for line in TRAFFIC.read_text().splitlines():
        record = json.loads(line)
        if record["path"].endswith("/sync"):
            body = record["body"] if isinstance(record["body"], dict) else json.loads(record["body"])
            shares.setdefault(record["path"], []).extend(body["data"])
    assert len(shares) >= 5
    for items in shares.values():
        transcript = transcript_of(state_of(items))
        drafts = (pages.share(FRAME, transcript, at="", until="", is_end=end) for end in (False, True))
        html = "".join(map(rendered, drafts))
        ids = {item["data"]["id"] for item in items if item["type"] == "part"}
        assert ids
        for part_id in ids:
            assert f'id="p-{part_id}"' in html


def test_long_output_is_cut_with_a_link_to_all_of_it(pages: Pages) -> None:
    output = "\n".join(f"line {number}" for number in range(5000))
    state = state_of([message("m1", "assistant"), tool("m1", "p1", "bash", {"command": "seq"}, output)])
    html = rendered(pages.share(FRAME, transcript_of(state), at="", until="", is_end=False))
    assert html is not None
    assert "line 59<" in html
    assert "line 60" not in html
    assert '<a class="show-all" href="everything/part/p1">Show all<span class="extent"> (5,000 lines' in html
    whole = rendered(pages.part(FRAME, transcript_of(state), "p1"))
    assert whole is not None
    assert "line 4999" in whole


def test_a_large_image_is_not_within_a_page_with_others(pages: Pages) -> None:
    url = "data:image/png;base64," + "A" * 400_000
    state = state_of(
        [message("m1", "user"), part("m1", "p1", "file", mime="image/png", filename="x", url=url)]
    )
    html = rendered(pages.share(FRAME, transcript_of(state), at="", until="", is_end=False))
    assert html is not None
    assert 'loading="lazy"' in html
    assert "A" * 1000 not in html
    whole = rendered(pages.part(FRAME, transcript_of(state), "p1"))
    assert whole is not None
    assert url in whole


@pytest.mark.parametrize(
    "url",
    [
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/html;base64,PHNjcmlwdD4=",
        "https://elsewhere.example/x.png",
        "javascript:alert(1)",
        image_url() + '" onerror="alert(1)',
    ],
)
def test_no_other_image_is_shown(pages: Pages, url: str) -> None:
    page = drawn(pages, part("m1", "p1", "file", mime="image/png", filename="x.png", url=url))
    assert "img" not in [tag for tag, _ in page.elements]


def test_characters_that_deceive_are_spelled_out_in_names_and_code(pages: Pages) -> None:
    page = drawn(
        pages,
        tool("m1", "p1", "write", {"filePath": "exe.\u202etxt", "content": "if \u2066admin\u2069: pass"}),
    )
    assert "exe.[U+202E]txt" in page.text
    assert "[U+2066]admin" in page.text


ODD: list[object] = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "text",
    "\ud83d",
    [],
    [None],
    {},
    {"": None},
    [[[[]]]],
    {"a": {"b": [1]}},
    10**300,
]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(
    "kind", ["text", "reasoning", "tool", "file", "patch", "retry", "compaction", "subtask", "agent", "new"]
)
def test_fields_of_wrong_types_never_break_a_page(pages: Pages, kind: str, odd: object) -> None:
    names = (
        "text time state tool source url mime filename files hash error attempt auto prompt name reason "
        "synthetic snapshot description"
    )
    whole = part("m1", "p1", kind, **dict.fromkeys(names.split(), odd))
    state_names = "status input output title metadata time error attachments"
    state = dict.fromkeys(state_names.split(), odd)
    calls = [
        part("m1", f"t{index}", "tool", tool=name, state=each)
        for index, name in enumerate(("bash", "read", "edit", "todowrite", "task", "question", "x", "grep"))
        for each in (state,)
    ]
    fields = "role time tokens cost modelID error agent summary finish model"
    items = [
        {"type": "message", "data": {"id": "m1", **dict.fromkeys(fields.split(), odd)}},
        {
            "type": "session",
            "data": {"id": "s", **dict.fromkeys(("title", "directory", "time", "tokens"), odd)},
        },
        {"type": "session_diff", "data": [odd, {"file": odd, "patch": odd, "additions": odd, "before": odd}]},
        whole,
        *calls,
    ]
    state_now = state_of(items)
    transcript = transcript_of(state_now)
    assert 'id="p-p1"' in (rendered(pages.share(FRAME, transcript, at="", until="", is_end=False)) or "")
    assert rendered(pages.changes(FRAME, transcript, is_split=True, file=None))
    assert rendered(pages.part(FRAME, transcript, "p1"))


def test_deep_nesting_is_shown_to_some_depth(pages: Pages) -> None:
    deep: object = "bottom"
    for _ in range(190):
        deep = {"in": deep}
    assert "bottom" not in drawn(pages, tool("m1", "p1", "unknown", {"x": deep}, "y")).text


def test_megabytes_of_text_are_cut(pages: Pages) -> None:
    items = [
        part("m1", "p1", "text", text="word " * 400_000),
        tool("m1", "p2", "bash", {"command": "x" * 2_000_000}, "y" * 2_000_000),
        tool("m1", "p3", "write", {"filePath": "a.py", "content": "z = 1\n" * 300_000}),
    ]
    assert len(page_of([message("m1", "assistant"), *items], pages)) < 200_000


def test_ids_that_are_no_names_get_anchors(pages: Pages) -> None:
    html = page_of([message('m"><b>', "user"), part('m"><b>', "p <i>", "text", text="hello")], pages)
    ids = Document(html).all("id")
    assert any(each.startswith("m--") for each in ids)
    assert any(each.startswith("p--") for each in ids)
