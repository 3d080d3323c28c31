"""Turns: what they took, whether they are at work, what was taken back; and what stands above them."""

from typing import Any

import pytest
from field_inputs import field

from rpcshare.render.rendering import Pages
from support.drawing_shares import FRAME, NOW, Document, page_of, rendered, state_of, transcript_of
from support.sample_session import message, part, tool


def text_of(items: list[Any], *, seconds_later: float = 0) -> str:
    return Document(page_of(items, Pages(lambda: NOW + seconds_later))).text


def test_the_footer_of_a_turn_sums_its_steps() -> None:
    page = page_of(field("04"))
    assert page.count('<p class="figures">') == 1
    assert "30 in · 60 out · 3.3k cached · $0.81 · 21.0 s" in Document(page).text


def test_in_means_the_same_above_the_messages() -> None:
    assert "30 in, 60 out, 3.3k cached" in text_of(field("04"))


def test_a_message_that_others_follow_was_interrupted() -> None:
    page = text_of(field("07"))
    assert "Interrupted" in page
    assert "Working" not in page


UNFINISHED = [message("m1", "assistant", time={"created": 1763640000000})]


@pytest.mark.parametrize(("seconds", "said"), [(0, "Working"), (60, "Working"), (600, "Interrupted")])
def test_a_message_is_at_work_as_long_as_syncs_come(seconds: float, said: str) -> None:
    page = text_of(UNFINISHED, seconds_later=seconds)
    assert {"Working": "Working" in page, "Interrupted": "Interrupted" in page} == {
        "Working": said == "Working",
        "Interrupted": said == "Interrupted",
    }


def test_a_tool_does_not_run_on_in_a_share_without_syncs() -> None:
    call = tool("m1", "p1", "bash", {"command": "sleep 1"})
    call["data"]["state"] = {"status": "running", "input": {"command": "sleep 1"}}  # type: ignore[index]
    assert ">running<" in page_of([*UNFINISHED, call])
    later = page_of([*UNFINISHED, call], Pages(lambda: NOW + 600))
    assert ">running<" not in later
    assert ">interrupted<" in later


def test_messages_that_were_taken_back_are_marked_and_folded() -> None:
    html = page_of(field("17"))
    assert html.count("Taken back by the user") == 2
    first, second = html.split("<summary>Taken back by the user</summary>")[1:]
    assert "Taken back</div>" in first
    assert "Taken back too" in second
    assert "details open" not in html


def test_parts_from_the_one_of_the_revert_on_are_taken_back() -> None:
    items = field("17")
    items[0]["data"]["revert"] = {"messageID": "m2", "partID": "q2b"}
    items.insert(5, part("m2", "q2b", "text", text="Second half"))
    html = page_of(items)
    kept, back = html.split("<summary>Taken back by the user</summary>")[:2]
    assert "One" in kept
    assert "Second half" in back


def test_what_was_taken_back_is_gone_after_a_new_prompt() -> None:
    new = message("m5", "user", time={"created": 1760000700000})
    page = text_of([*field("17"), new, part("m5", "q5", "text", text="Another way")])
    assert "Taken back" not in page.replace("taken back", "")
    assert "Another way" in page


def test_changes_that_were_taken_back_are_not_shown() -> None:
    items = [item for item in field("05") if item["type"] != "session"]
    session = {"type": "session", "data": {"id": "s", "directory": "/d", "revert": {"messageID": "m2"}}}
    html = rendered(
        Pages().changes(FRAME, transcript_of(state_of([session, *items])), is_split=False, file=None)
    )
    assert "No files have been changed." in html


@pytest.mark.parametrize("title", ["", "New session - 2025-10-09T08:53:20.000Z"])
def test_a_session_without_a_title_has_its_first_prompt_for_one(title: str) -> None:
    items = [{"type": "session", "data": {"id": "s", "title": title}}, *field("14")]
    assert '<h1 dir="auto">No item of type session came</h1>' in page_of(items)


def test_without_a_session_the_times_are_those_of_the_messages() -> None:
    page = text_of(field("14"))
    assert "Started9 Oct 2025, 08:53 UTC" in page.replace(" 9 Oct", "9 Oct")
    assert "Last change9 Oct 2025" in page.replace(" 9 Oct", "9 Oct")


def test_the_last_change_is_the_session_s_own() -> None:
    assert "Last change9 Oct 2025, 09:03 UTC" in text_of(field("17")).replace(" 9 Oct", "9 Oct")
