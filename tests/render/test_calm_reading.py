"""What makes a long session calm to read: parts that are folded together, long prompts, links and copies."""

from typing import Any

import pytest

from rpcshare.render.rendering import Pages
from rpcshare.shares.outline import Transcript
from support.drawing_shares import FRAME, NOW, Document, page_of, rendered, state_of, transcript_of
from support.sample_session import message, part, tool


def thought(part_id: str, text: str) -> dict[str, object]:
    return part("m1", part_id, "reasoning", text=text, time={"start": 1, "end": 2})


def read(part_id: str, file: str, **state: object) -> dict[str, object]:
    return tool("m1", part_id, "read", {"filePath": f"/home/dev/ledger/{file}"}, "one", **state)


SESSION = {"type": "session", "data": {"id": "s", "title": "T", "directory": "/home/dev/ledger"}}


def groups_of(*parts: dict[str, object]) -> list[str]:
    page = Document(page_of([SESSION, message("m1", "assistant"), *parts]))
    return [attributes["id"] for _, attributes in page.elements if "group" in attributes.get("class", "")]


def test_neighbouring_thoughts_are_one_under_their_first_bold_line() -> None:
    items = [
        SESSION,
        message("m1", "assistant"),
        part("m1", "s1", "step-start"),
        thought("t1", "I begin."),
        thought("t2", "**Reading the code**\n\nIt is *long*."),
        thought("t3", "**Deciding**\n\nNow."),
    ]
    html = page_of(items)
    assert html.count('<span class="label">Thought</span>') == 1
    assert 'dir="auto">Reading the code</span>' in html
    text = Document(html).text
    assert text.index("I begin.") < text.index("It is long.") < text.index("Now.")


def test_a_single_thought_has_its_first_bold_line_for_a_title() -> None:
    html = page_of([SESSION, message("m1", "assistant"), thought("t1", "**Deciding**\n\nNow.")])
    assert 'dir="auto">Deciding</span>' in html
    assert groups_of(thought("t1", "**Deciding**\n\nNow.")) == []


def test_runs_of_reads_are_folded() -> None:
    files = [read(f"r{number}", f"src/{number}.py") for number in range(5)]
    html = page_of([SESSION, message("m1", "assistant"), *files, part("m1", "a", "text", text="Done")])
    assert '<span class="label">Read 5 files</span>' in html
    assert "src/0.py, src/1.py, src/2.py, src/3.py and 1 more" in html
    assert (
        html.index('id="p-r4"') < html.index("</details></div>", html.index('id="p-r4"')) < html.index("Done")
    )


def test_a_run_of_reads_ends_where_something_else_was_done_or_failed() -> None:
    failed = read("r3", "d.py", status="error", error="No such file")
    assert groups_of(read("r1", "a"), read("r2", "b"), failed, read("r4", "e"), read("r5", "f")) == []
    edit = tool("m1", "e1", "edit", {"filePath": "a"}, "")
    assert groups_of(read("r1", "a"), read("r2", "b"), read("r3", "c"), edit, read("r4", "d")) == ["g-r1"]


def test_searches_count_among_what_was_only_read() -> None:
    grep = tool("m1", "g1", "grep", {"pattern": "x"}, "a.py:1")
    html = page_of(
        [SESSION, message("m1", "assistant"), read("r1", "a"), grep, read("r2", "a"), read("r3", "b")]
    )
    assert '<span class="label">Read 2 files, searched 1 time</span>' in html


def test_parts_that_were_taken_back_are_in_no_group_with_others() -> None:
    session = {"id": "s", "title": "T", "revert": {"messageID": "m1", "partID": "r3"}}
    items = [
        {"type": "session", "data": session},
        message("m1", "assistant"),
        *(read(f"r{number}", f"{number}") for number in range(6)),
    ]
    html = page_of(items)
    assert html.index('id="g-r0"') < html.index("Taken back by the user") < html.index('id="g-r3"')


def transcript_after(*syncs: Any) -> Transcript:
    state = state_of(syncs[0])
    _ = state.outline.entries
    for items in syncs[1:]:
        state_of_sync(state, items)
    return transcript_of(state)


def state_of_sync(state: object, items: list[dict[str, object]]) -> None:
    from rpcshare.shares.state import ShareState
    from rpcshare.shares.syncdata import parse_batch

    assert isinstance(state, ShareState)
    state.apply(parse_batch(items).items, 1763640000000)


def test_an_update_has_the_whole_group_that_a_new_part_makes() -> None:
    before = [SESSION, message("m1", "assistant"), read("r1", "a"), read("r2", "b")]
    transcript = transcript_after(before, [read("r3", "c")])
    update = rendered(Pages(lambda: NOW).update(transcript, 1))
    assert '<span class="label">Read 3 files</span>' in update.messages
    assert [f'id="p-r{number}"' in update.messages for number in (1, 2, 3)] == [True] * 3


def test_an_update_has_no_more_than_what_changed_and_its_group() -> None:
    before = [SESSION, message("m1", "assistant"), part("m1", "a", "text", text="x"), thought("t1", "y")]
    update = rendered(Pages(lambda: NOW).update(transcript_after(before, [thought("t2", "z")]), 1))
    assert 'id="p-a"' not in update.messages
    assert 'id="g-t1"' in update.messages


@pytest.mark.parametrize("text", ["short", "line\n" * 20, "word " * 200])
def test_prompts_of_usual_length_are_not_folded(text: str) -> None:
    html = page_of([SESSION, message("m1", "user"), part("m1", "p1", "text", text=text)])
    assert 'class="rest"' not in html


@pytest.mark.parametrize(
    "text", ["line of it\n" * 100 + "the end", "word " * 2000 + "the end", "x" * 5000 + "the end"]
)
def test_the_rest_of_a_long_prompt_is_folded_and_there(text: str) -> None:
    html = page_of([SESSION, message("m1", "user"), part("m1", "p1", "text", text=text)])
    head, _, rest = html.partition('<details class="rest">')
    assert "the end" not in head.partition('id="p-p1"')[2].partition(">")[2]
    assert "the end" in rest
    whole = rendered(
        Pages(lambda: NOW).part(
            FRAME,
            transcript_of(state_of([SESSION, message("m1", "user"), part("m1", "p1", "text", text=text)])),
            "p1",
        )
    )
    assert 'class="rest"' not in whole


def test_each_part_has_a_link_to_itself() -> None:
    items = [SESSION, message("m1", "assistant"), part("m1", "a/b", "text", text="x"), read("r1", "a")]
    links = [each for each in Document(page_of(items)).all("href") if each.startswith("?part=")]
    assert len(links) == 2
    assert "?part=r1#p-r1" in links


def test_an_answer_is_copied_as_markdown_and_a_command_alone() -> None:
    answer = 'An **answer** with `code`, "quotes" & <tags>'
    items = [
        SESSION,
        message("m1", "assistant"),
        part("m1", "a1", "text", text=answer),
        tool("m1", "b1", "bash", {"command": "make test"}, "output"),
    ]
    assert Document(page_of(items)).all("data-copy") == [answer, "make test"]


def test_what_is_cut_is_not_copied_in_half() -> None:
    items = [SESSION, message("m1", "assistant"), part("m1", "a1", "text", text="word " * 10_000)]
    assert Document(page_of(items)).all("data-copy") == []


def test_a_link_to_a_part_begins_its_page_before_it() -> None:
    items = [
        SESSION,
        message("m1", "assistant"),
        *(part("m1", f"p{n}", "text", text=f"{n}") for n in range(200)),
    ]
    pages, transcript = Pages(lambda: NOW), transcript_of(state_of(items))
    assert pages.place_of_part(transcript, "p150") == "m1.147"
    assert pages.place_of_part(transcript, "p3") == "m1"
    assert pages.place_of_part(transcript, "none") == ""


def context(part_id: str, text: str, name: str = "") -> dict[str, object]:
    more = {"metadata": {"entry": name}} if name else {}
    return part("m1", part_id, "text", text=text, synthetic=True, **more)


def test_neighbouring_context_is_one_card_that_names_its_pieces() -> None:
    pieces = [context("c1", "a", "session_meta"), context("c2", "b"), context("c3", "c", "turn_context")]
    html = page_of([SESSION, message("m1", "user"), *pieces, part("m1", "p1", "text", text="Fly")])
    assert "session_meta, turn_context</span>" in html
    assert (
        html.index('id="p-c3"') < html.index("</details></div>", html.index('id="p-c3"')) < html.rindex("Fly")
    )


def test_a_message_in_which_nobody_typed_is_no_prompt() -> None:
    html = page_of([SESSION, message("m1", "user"), context("c1", "a"), context("c2", "b")])
    assert 'class="message other' in html
    assert 'id="t-m1"' not in html


def test_context_named_by_anything_else_is_context_without_a_name() -> None:
    odd = [{"entry": 7}, "x", None, [1], {"entry": {"a": 1}}]
    pieces = [
        part("m1", f"c{n}", "text", text="x", synthetic=True, metadata=each) for n, each in enumerate(odd)
    ]
    assert "5 pieces" in page_of([SESSION, message("m1", "user"), *pieces])
