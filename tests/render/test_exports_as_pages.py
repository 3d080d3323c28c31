"""What `opencode export` prints, pushed and seen as a page."""

import json
from typing import Any

from field_inputs import field, field_file

from rpcshare.transcripts import EXPORTS, ExportFormat, Turn, Turns
from support.drawing_shares import Document, page_of, state_of, transcript_of


def test_an_export_of_the_field_is_a_page_with_all_that_is_in_it() -> None:
    html = page_of(field("15"))
    page = Document(html)
    assert '<h1 dir="auto">x</h1>' in html
    assert "Directory/home/dev/demo" in page.text
    assert "Messages1" in page.text
    assert next(element for tag, element in page.elements if tag == "article")["class"] == "message user"
    assert page.text.count("Hello") == 2  # in the list of prompts, too


def test_times_of_an_export_are_the_session_s_own() -> None:
    moments = Document(page_of(field("15"))).all("datetime")
    assert moments[:2] == ["2025-10-09T08:53:20Z", "2025-10-09T09:03:20Z"]


def test_an_export_that_was_pushed_is_exported_as_it_was() -> None:
    transcript = transcript_of(state_of(field("15")))
    turns = [Turn(entry.body, [part.body for part in entry.parts]) for entry in transcript.entries]
    pieces = EXPORTS[ExportFormat.OPENCODE].pieces
    assert pieces is not None
    written = b"".join(pieces(Turns(transcript.session, turns)))
    # opencode imports ids of its own form alone, and no message of a user without a model.
    written = written.replace(b'"msg_m1"', b'"m1"').replace(b'"prt_q1"', b'"q1"')
    exported: dict[str, Any] = json.loads(written)
    given = json.loads(field_file("15"))
    assert {name: exported["info"][name] for name in given["info"]} == given["info"]
    for message, held in zip(exported["messages"], given["messages"], strict=True):
        assert {name: message["info"][name] for name in held["info"]} == held["info"]
        assert message["parts"] == held["parts"]
