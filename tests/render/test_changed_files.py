"""The files that a session changed, from whatever tells of them."""

import json
from typing import Any

import pytest
from drawing_shares import FRAME, Document, rendered, state_of, transcript_of
from field_inputs import field
from sample_session import message, part, tool

from rpcshare.render.rendering import Pages

PATCH = "--- {0}\n+++ {0}\n@@ -1,1 +1,1 @@\n-{1}\n+{2}\n"


def changes(items: list[Any], *, is_split: bool = False) -> str:
    transcript = transcript_of(state_of(items))
    return rendered(Pages().changes(FRAME, transcript, is_split=is_split, file=None))


def files(html: str) -> list[str]:
    return [piece.partition(">")[2].partition("<")[0] for piece in html.split('<h2 class="file"')[1:]]


def test_tools_tell_of_changes_where_no_session_diff_does() -> None:
    html = changes(field("05"))
    assert files(html) == ["a.py"]
    assert "1 file" in Document(html).text
    assert 'data-n="1"' in html


@pytest.mark.parametrize("is_split", [False, True])
def test_both_line_numbers_stand_beside_the_lines(is_split: bool) -> None:
    html = changes(field("05"), is_split=is_split)
    row = html[html.index("<tr") : html.index("</tr>")]
    assert row.count('class="no"') == 2


def test_a_file_without_lines_is_said_to_have_none() -> None:
    html = changes(field("16"))
    assert files(html) == ["out/A.class", "run", "run_test"]
    assert "No lines to show: the file is binary, or only its mode or time changed." in html
    assert "No newline at the end." in html
    assert '<span class="status added">' in html


def test_every_file_of_apply_patch_is_listed_once() -> None:
    assert files(changes(field("01"))) == ["a.txt", "b.txt"]


def edited(part_id: str, old: str, new: str, **metadata: object) -> dict[str, Any]:
    patch = PATCH.format("/home/dev/demo/a.py", old, new)
    told: dict[str, object] = {"diff": patch} | metadata
    given = {"filePath": "/home/dev/demo/a.py", "oldString": old, "newString": new}
    return tool("m2", part_id, "edit", given, "ok", metadata=told)


SESSION = {"type": "session", "data": {"id": "s", "directory": "/home/dev/demo", "title": "T"}}


def test_the_last_word_on_a_file_wins() -> None:
    items = [SESSION, message("m2", "assistant"), edited("p1", "zero", "9"), edited("p2", "9", "second")]
    html = changes(items)
    assert files(html) == ["a.py"]
    assert "second" in html
    assert "zero" not in html


def test_what_a_prompt_says_of_its_turn_comes_before_its_tools() -> None:
    diffs = [{"file": "b.py", "patch": PATCH.format("b.py", "x", "y"), "additions": 1, "deletions": 1}]
    items = [
        SESSION,
        message("m1", "user", summary={"diffs": diffs}),
        part("m1", "q1", "text", text="Do"),
        message("m2", "assistant"),
        edited("p1", "one", "two"),
    ]
    assert files(changes(items)) == ["b.py"]


def test_a_call_that_failed_changed_nothing() -> None:
    failed = edited("p1", "one", "two")
    failed["data"]["state"]["status"] = "error"
    assert files(changes([SESSION, message("m2", "assistant"), failed])) == []


def test_a_file_that_was_written_is_listed() -> None:
    given = {"filePath": "/home/dev/demo/new.py", "content": "a = 1\nb = 2\n"}
    written = tool("m2", "p1", "write", given, "ok", metadata={"exists": False})
    html = changes([SESSION, message("m2", "assistant"), written])
    assert files(html) == ["new.py"]
    assert '<span class="status added">' in html
    assert 'aria-label="2 added"' in html


def test_counts_alone_are_said_to_be_counts_alone() -> None:
    session = json.loads(json.dumps(SESSION))
    session["data"]["summary"] = {"files": 2, "additions": 5, "deletions": 1}
    assert "but what changed in them was not shared" in Document(changes([session])).text
