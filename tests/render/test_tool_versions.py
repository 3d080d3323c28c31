"""Tools of opencode, in each version that changed the shape of what they say."""

import json
from typing import Any

import pytest
from field_inputs import field

from support.drawing_shares import Document, page_of
from support.sample_session import image_url, message, tool


def part_of(html: str, part_id: str) -> str:
    start = html.index(f'id="p-{part_id}"')
    return html[start : html.find('<div class="part ', start)]


def drawn(name: str, given: object, output: str, **metadata: object) -> Document:
    items = [message("m1", "assistant"), tool("m1", "p1", name, given, output, metadata=metadata)]
    return Document(page_of(items))


def test_read_shows_the_lines_of_a_file_under_their_numbers() -> None:
    html = part_of(page_of(field("02")), "t1")
    assert "4 lines" in html
    assert 'data-first="1"' in html
    assert "End of file" not in html
    assert "&lt;content&gt;" not in html
    assert "2:" not in Document(html).text


def test_read_shows_which_lines_of_how_many() -> None:
    html = part_of(page_of(field("02")), "t2")
    assert "lines 248-249 of 900" in html
    assert 'data-first="248"' in html
    assert "Use offset" not in html


def test_read_shows_what_is_in_a_directory() -> None:
    html = part_of(page_of(field("02")), "t3")
    assert "2 entries" in html
    assert "main.rs\nui/" in html
    assert "entries)" not in html


READ: dict[str, Any] = {
    "1.1": "<file>\n00007| a = 1\n00008| \n00009| b = 2\n\n(End of file - total 9 lines)\n</file>",
    "1.2": "<path>/x.py</path>\n<type>file</type>\n<content>\n7: a = 1\n8: \n9: b = 2\n\n"
    "(End of file - total 9 lines)\n</content>",
    "1.2 with a reminder": "<path>/x.py</path>\n<type>file</type>\n<content>\n7: a = 1\n8: \n9: b = 2\n\n"
    "(End of file - total 9 lines)\n</content>\n\n<system-reminder>\nBe kind.\n</system-reminder>",
}


def test_read_of_opencode_2_has_its_numbers_and_count() -> None:
    page = drawn(
        "read",
        {"path": "/x.py", "offset": 7},
        "Read file /x.py, lines 7-9\n7: a = 1\n8: \n9: b = 2\n"
        "[Output truncated. Continue reading with offset: 10]",
    )
    assert "7" in page.all("data-first")
    assert "3 lines" in page.text
    assert "Output truncated" not in page.text


def test_a_directory_that_opencode_2_has_read_shows_its_entries() -> None:
    page = drawn("read", {"path": "/src"}, "Read directory /src, entries 1-2\nmain.rs\nui/")
    assert "2 entries" in page.text
    assert "Read directory" not in page.text


@pytest.mark.parametrize("version", READ)
def test_read_of_every_version_has_its_numbers_and_count(version: str) -> None:
    page = drawn("read", {"filePath": "/x.py", "offset": 7}, READ[version])
    assert "7" in page.all("data-first")
    assert "lines 7-9 of 9" in page.text
    assert "total" not in page.text


TASK: dict[str, Any] = {
    "1.0": "All **fine**.\n\n<task_metadata>\nsession_id: ses_child1\n</task_metadata>",
    "1.1": "task_id: ses_child1 (for resuming this task)\n\n<task_result>\nAll **fine**.\n</task_result>",
    "a plugin's": 'All **fine**.\n\n<task_metadata>{"session_id":"ses_child1"}</task_metadata>',
    "1.17": '<task id="ses_child1" state="completed">\n<task_result>\nAll **fine**.\n</task_result>\n</task>',
    "2.0": '<subagent sessionID="ses_child1" state="completed">\nAll **fine**.\n</subagent>',
}


@pytest.mark.parametrize("version", TASK)
def test_the_answer_of_a_sub_agent_stands_without_tags(version: str) -> None:
    name = "subagent" if version == "2.0" else "task"
    page = drawn(name, {"description": "Look", "prompt": "Look"}, TASK[version])
    assert "All fine." in page.text
    assert "task" not in page.text
    assert "subagent" not in page.text
    assert "ses_child1" not in page.text


def test_a_sub_agent_of_the_field_is_drawn_without_tags() -> None:
    assert "&lt;task" not in page_of(field("03"))


def test_a_question_shows_its_header_descriptions_and_what_was_chosen() -> None:
    html = page_of(field("08"))
    page = Document(html)
    assert "Database" in page.text
    assert "One file, no server" in page.text
    assert html.count('aria-label="chosen"') == 1
    chosen = html[html.index('aria-label="chosen"') :]
    assert Document("<p " + chosen).text.strip().startswith("SQLite")


def test_an_answer_that_was_written_is_shown_as_chosen() -> None:
    given = {"questions": [{"question": "Which?", "options": [{"label": "A", "description": "first"}]}]}
    assert "Other" in drawn("question", given, "", answers=[["Other"]]).text


def test_answers_within_the_output_are_found() -> None:
    given = {"questions": [{"question": "Which?", "options": [{"label": "A"}, {"label": "B"}]}]}
    page = drawn("question", given, 'User has answered your questions: "Which?"="B". You can now continue')
    assert page.all("aria-label").count("chosen") == 1


def test_a_call_that_was_invalid_is_shown_as_failed() -> None:
    html = part_of(page_of(field("13")), "t3")
    assert html.count("unavailable tool &#39;reed&#39;") == 1
    assert "<details open><summary>" in html
    heading = Document(html[html.index("<summary>") : html.index("</summary>")]).text
    assert " ".join(heading.split()) == "Invalid call reed failed 4 ms"
    # What the model is told of it is nothing that a reader needs beside it.
    assert "The arguments provided" not in html


def test_a_call_of_an_mcp_server_is_not_failed_and_shows_what_it_was_given() -> None:
    html = part_of(page_of(field("13")), "t1")
    assert "failed" not in html
    page = Document(html)
    assert "docs search pages" in page.text
    assert "query cache" in page.text.replace("querycache", "query cache")


def test_json_of_an_mcp_server_is_readable() -> None:
    html = page_of(field("13"))
    assert "\\n" not in part_of(html, "t1")
    assert '<span class="n">x</span>' in part_of(html, "t1")
    assert "line 1\nline 2" in part_of(html, "t2")
    assert "a, b" in part_of(html, "t2")
    assert "Cache" in part_of(html, "t2")
    assert "{" not in Document(part_of(html, "t2")).text


RESULTS: dict[str, Any] = {
    "texts": ('{"content": [{"type": "text", "text": "one **two**"}]}', "one two"),
    "a bare list": ('[{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]', "one two"),
    "with space around": (' \n{"content": [{"type": "text", "text": "one two"}]}\n', "one two"),
    "beside structured content": (
        '{"structuredContent": {"a": 1}, "content": [{"type": "text", "text": "one two"}]}',
        "one two",
    ),
    "JSON as a text": ('{"content": [{"type": "text", "text": "{\\"name\\": \\"two\\"}"}]}', "nametwo"),
    "JSON as JSON": (json.dumps(json.dumps({"name": "one\ntwo"})), "nameone two"),
    "a resource": (
        '{"content": [{"type": "resource", "resource": {"uri": "file:///x", "text": "one\\ntwo"}}]}',
        "Resource: file:///xone two",
    ),
    "lines within lists": ('{"results": [{"title": "A", "text": "one\\ntwo"}]}', "results.0.textone two"),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_results_of_mcp_servers_are_readable(kind: str) -> None:
    output, text = RESULTS[kind]
    assert text in drawn("docs_find", {"q": 1}, output).text.replace("</p>", " ")


def test_images_of_an_mcp_result_are_shown() -> None:
    data = image_url().partition(",")[2]
    output = json.dumps({"content": [{"type": "image", "data": data, "mimeType": "image/png"}]})
    assert drawn("chart", {}, output).all("src")[-1] == image_url()


def test_a_result_that_says_that_it_is_an_error_is_shown_as_failed() -> None:
    output = '{"isError": true, "content": [{"type": "text", "text": "no such page"}]}'
    page = drawn("docs_get", {"id": 7}, output)
    assert "failed" in page.text
    assert "no such page" in page.text


@pytest.mark.parametrize(
    "output", ["{bad json", "[]", "{}", "42", '{"a": 1}\n{"b": 2}', "[" * 5000, '"' * 99]
)
def test_what_is_no_result_of_an_mcp_server_stays_as_it_is(output: str) -> None:
    assert " ".join(output[:40].split()) in drawn("docs_get", {"id": 7}, output).text


PATCHED = "--- a.py\n+++ a.py\n@@ -3,1 +3,1 @@\n-old = 1\n+new = 2\n"
EDIT: dict[str, Any] = {
    "before any metadata": {},
    "with a diff": {"diff": PATCHED},
    "until 1.2": {"diff": PATCHED, "filediff": {"file": "a.py", "before": "old = 1", "after": "new = 2"}},
    "later": {"filediff": {"file": "a.py", "patch": PATCHED, "additions": 1, "deletions": 1}},
    "2.0": {"files": [{"file": "a.py", "patch": PATCHED, "additions": 1, "deletions": 1}]},
}


@pytest.mark.parametrize("version", EDIT)
def test_edit_of_every_version_shows_both_lines_once(version: str) -> None:
    given = {"filePath": "/home/dev/a.py", "oldString": "old = 1", "newString": "new = 2"}
    text = drawn("edit", given, "done", **EDIT[version]).text
    assert (text.count("old = 1"), text.count("new = 2")) == (1, 1)


def test_multiedit_shows_each_of_its_edits() -> None:
    edits = [{"oldString": f"old {n}", "newString": f"new {n}"} for n in (1, 2)]
    results = [
        {
            "filediff": {
                "file": "a.py",
                "before": f"old {n}",
                "after": f"new {n}",
                "additions": 1,
                "deletions": 1,
            }
        }
        for n in (1, 2)
    ]
    for metadata in ({}, {"results": results}):
        text = drawn("multiedit", {"filePath": "a.py", "edits": edits}, "done", **metadata).text
        assert [text.count(f"new {n}") for n in (1, 2)] == [1, 1]


WRITE: dict[str, Any] = {
    "before any metadata": ({}, "Write"),
    "new, in the first versions": ({"exists": False}, "Create"),
    "over another": ({"exists": True}, "Write"),
    "later": ({"exists": True, "diff": PATCHED, "filediff": {"file": "a.py", "patch": PATCHED}}, "Write"),
}


@pytest.mark.parametrize("version", WRITE)
def test_write_of_every_version_shows_the_content(version: str) -> None:
    metadata, label = WRITE[version]
    text = drawn("write", {"filePath": "/x/a.py", "content": "new = 2\n"}, "done", **metadata).text
    assert f"{label} /x/a.py" in text
    assert text.count("new = 2") == 1


APPLY_PATCH: dict[str, Any] = {
    "first, with the input alone": {},
    "with one diff of all": {"diff": PATCHED},
    "diff of each file": {"files": [{"filePath": "a.py", "type": "update", "diff": PATCHED}]},
    "patch of each file": {
        "files": [{"filePath": "a.py", "relativePath": "a.py", "type": "update", "patch": PATCHED}],
        "diff": PATCHED,
    },
}


@pytest.mark.parametrize("version", APPLY_PATCH)
def test_apply_patch_of_every_version_shows_both_lines_once(version: str) -> None:
    written = "*** Begin Patch\n*** Update File: a.py\n@@\n-old = 1\n+new = 2\n*** End Patch"
    text = drawn("apply_patch", {"patchText": written}, "Success.", **APPLY_PATCH[version]).text
    assert (text.count("old = 1"), text.count("new = 2")) == (1, 1)


def test_read_of_the_newest_versions_takes_what_its_metadata_has_to_show() -> None:
    display = {"text": "a = 1\nb = 2", "lineStart": 7, "totalLines": 9}
    page = drawn("read", {"filePath": "/x.py"}, "whatever", display=display)
    assert "lines 7-8 of 9" in page.text
    assert "whatever" not in page.text


def test_diagnostics_are_those_of_the_edited_file_with_their_text() -> None:
    page = Document(page_of(field("11")))
    assert 'Error, line 5:3: "b" is not defined' in page.text
    assert "unused" not in page.text


def test_errors_come_before_warnings() -> None:
    problems = [
        {"severity": 2, "message": "careful"},
        {"severity": 1, "message": "wrong", "range": {"start": {"line": 0, "character": 0}}},
    ]
    page = drawn(
        "edit", {"filePath": "/a.py", "oldString": "a", "newString": "b"}, "", diagnostics={"/a.py": problems}
    )
    assert page.text.index("wrong") < page.text.index("careful")


def test_every_file_of_apply_patch_has_its_own_lines_once() -> None:
    html = part_of(page_of(field("01")), "t1")
    assert html.count('class="diff-head"') == 2
    assert html.count(">one</td>") == 1
    assert html.count("new</td>") == 1


def test_paths_of_windows_are_seen_from_the_session_s_directory() -> None:
    html = page_of(field("06"))
    assert ">src/a.py<" in html


def test_a_patch_whose_files_come_without_lines_has_those_of_its_input() -> None:
    written = "*** Begin Patch\n*** Update File: a.py\n@@\n-old = 1\n+new = 2\n*** End Patch"
    files = [{"filePath": "/home/dev/demo/a.py", "relativePath": "a.py", "type": "update"}]
    page = drawn("apply_patch", {"patchText": written}, "Success.", files=files)
    assert "new = 2" in page.text
