"""Tools of opencode, in each version that changed the shape of what they say."""

import pytest
from drawing_shares import Document, page_of
from field_inputs import field
from sample_session import message, tool


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


READ = {
    "1.1": "<file>\n00007| a = 1\n00008| \n00009| b = 2\n\n(End of file - total 9 lines)\n</file>",
    "1.2": "<path>/x.py</path>\n<type>file</type>\n<content>\n7: a = 1\n8: \n9: b = 2\n\n"
    "(End of file - total 9 lines)\n</content>",
    "1.2 with a reminder": "<path>/x.py</path>\n<type>file</type>\n<content>\n7: a = 1\n8: \n9: b = 2\n\n"
    "(End of file - total 9 lines)\n</content>\n\n<system-reminder>\nBe kind.\n</system-reminder>",
}


@pytest.mark.parametrize("version", READ)
def test_read_of_every_version_has_its_numbers_and_count(version: str) -> None:
    page = drawn("read", {"filePath": "/x.py", "offset": 7}, READ[version])
    assert "7" in page.all("data-first")
    assert "lines 7-9 of 9" in page.text
    assert "total" not in page.text


TASK = {
    "1.0": "All **fine**.\n\n<task_metadata>\nsession_id: ses_child1\n</task_metadata>",
    "1.1": "task_id: ses_child1 (for resuming this task)\n\n<task_result>\nAll **fine**.\n</task_result>",
    "a plugin's": 'All **fine**.\n\n<task_metadata>{"session_id":"ses_child1"}</task_metadata>',
    "1.17": '<task id="ses_child1" state="completed">\n<task_result>\nAll **fine**.\n</task_result>\n</task>',
}


@pytest.mark.parametrize("version", TASK)
def test_the_answer_of_a_sub_agent_stands_without_tags(version: str) -> None:
    page = drawn("task", {"description": "Look", "prompt": "Look"}, TASK[version])
    assert "All fine." in page.text
    assert "task" not in page.text.replace("Sub-agent", "")
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
    assert ">failed<" in html
    assert "unavailable tool &#39;reed&#39;" in html


def test_json_of_an_mcp_server_is_readable() -> None:
    html = page_of(field("13"))
    assert "\\n" not in part_of(html, "t1")
    assert '<span class="n">x</span>' in part_of(html, "t1")
    assert "line 1\nline 2" in part_of(html, "t2")
    assert "a, b" in part_of(html, "t2")


def test_the_texts_of_an_mcp_result_are_prose() -> None:
    page = drawn("docs_find", {"q": 1}, '{"content": [{"type": "text", "text": "one **two**"}]}')
    assert "one two" in page.text


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
