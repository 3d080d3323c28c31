"""The files that a session changed, from whatever tells of them."""

import json
from typing import Any

import pytest
from field_inputs import field

from rpcshare.render.changed_files import changed_files_in_time
from rpcshare.render.rendering import Pages
from rpcshare.render.sessions import is_counted, view_of_session
from rpcshare.transcripts.opencode_changes import changes_of_part, counts_of_part
from support.drawing_shares import FRAME, NOW, Document, rendered, state_of, transcript_of
from support.sample_session import message, part, tool

PATCH = "--- {0}\n+++ {0}\n@@ -1,1 +1,1 @@\n-{1}\n+{2}\n"


def changes(items: list[Any], *, is_split: bool = False) -> str:
    transcript = transcript_of(state_of(items))
    return rendered(Pages().changes(FRAME, transcript, is_split=is_split, file=None))


def session_of_edits(number: int) -> list[Any]:
    """Return a session that edits so many files, each in a message of its own."""
    items: list[Any] = [{"type": "session", "data": {"id": "s", "title": "T"}}, message("m", "user")]
    for place in range(number):
        file = {"file": f"{place}.py", "additions": 2, "deletions": 1, "before": "x", "after": "y"}
        given = {"filePath": f"{place}.py", "oldString": "x", "newString": "y"}
        items.append(message(f"m{place}", "assistant"))
        items.append(tool(f"m{place}", f"p{place}", "edit", given, "done", metadata={"filediff": file}))
    return items


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


def test_a_page_does_not_wait_until_very_many_edits_are_counted() -> None:
    ticks = iter(range(1000))
    transcript = transcript_of(state_of(session_of_edits(50)))
    assert changed_files_in_time(transcript, 10, now=lambda: next(ticks)) is None
    # What has been read is kept, so that it comes to an end.
    for _ in range(10):
        found = changed_files_in_time(transcript, 10, now=lambda: next(ticks))
    assert found is not None
    assert len(found) == 50


def test_a_page_that_did_not_wait_hears_of_the_changes_when_it_is_live() -> None:
    transcript = transcript_of(state_of(session_of_edits(3)))
    assert is_counted(transcript)
    assert not view_of_session(transcript, 0).is_counted
    assert not is_counted(transcript)
    update = rendered(Pages(lambda: NOW).update(transcript, transcript.sync_count))
    assert "+6" in update.tabs
    assert is_counted(transcript)
    assert view_of_session(transcript, 0).files == 3


EDITS = [
    {"filediff": {"file": "a.py", "additions": 2, "deletions": 1, "before": "x", "after": "y"}},
    {
        "filediff": {"file": "a.py", "additions": 2, "deletions": 1},
        "diff": "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n",
    },
    {"filediff": {"file": "a.py", "additions": 2, "deletions": 1}},
    {"filediff": {"file": "", "additions": 2, "deletions": 1, "patch": "x"}},
    {"filediff": {"file": "a.py", "additions": 2.5, "deletions": "1", "patch": "x"}},
    {"filediff": {"file": "a.py", "patch": "@@ -1 +1 @@\n-x\n+y\n"}},
    {"filediff": None, "diff": "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n"},
    {"results": [{"filediff": {"file": "a.py", "additions": 2, "deletions": 1, "patch": "x"}}]},
    {
        "files": [
            {"filePath": "a", "movePath": "b", "type": "move", "additions": 1, "deletions": 0, "patch": "+x"}
        ]
    },
    {"files": [{"filePath": "a", "additions": 1, "deletions": 0, "diff": "+x"}] * 2},
    {"files": [{"filePath": "a", "additions": 1, "deletions": 0}]},
    {"files": []},
    {},
]


@pytest.mark.parametrize("metadata", EDITS)
@pytest.mark.parametrize("name", ["edit", "write", "multiedit", "apply_patch", "read"])
@pytest.mark.parametrize("status", ["completed", "error"])
def test_counting_without_decoding_tells_the_same_as_decoding(
    name: str, metadata: dict[str, object], status: str
) -> None:
    given = {"filePath": "a.py", "oldString": "x", "newString": "y", "content": "z"}
    call = tool("m1", "p1", name, given, "done", metadata=metadata, status=status)
    body = json.dumps(call["data"]).encode()
    counts = counts_of_part(body)
    if counts is None:
        return
    told = [(diff["file"], diff.get("additions"), diff.get("deletions")) for diff in changes_of_part(body)]
    assert [tuple(count) for count in counts] == told


def test_usual_edits_are_counted_without_decoding() -> None:
    assert all(
        counts_of_part(json.dumps(item["data"]).encode())
        for item in session_of_edits(3)
        if item["type"] == "part"
    )
