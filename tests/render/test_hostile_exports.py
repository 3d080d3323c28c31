"""The files of a share, with hostile text in every place where a session has text."""

import json
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from rpcshare.server.file_names import content_disposition, safe_file_name
from rpcshare.shares.outline import Entry
from rpcshare.shares.state import ShareState
from rpcshare.transcripts import EXPORTS, ExportFormat, Turn, Turns
from support.drawing_shares import state_of
from support.hostile_strings import HOSTILE, hostile_session

ACTIVE = {
    "script",
    "img",
    "svg",
    "iframe",
    "object",
    "embed",
    "form",
    "input",
    "style",
    "link",
    "meta",
    "base",
}
SCHEMES = ("http:", "https:", "mailto:")


class Findings(HTMLParser):
    """What a browser would act on in Markdown that was rendered with its HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.headings = self.depth = 0
        self.feed(MarkdownIt("commonmark", {"html": True}).render(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.depth += tag in ("blockquote", "li")
        self.headings += tag in ("h1", "h2") and not self.depth
        if tag in ACTIVE or any(name.startswith("on") or name == "style" for name, _ in attrs):
            self.active.append(self.get_starttag_text() or tag)
        for name, value in attrs:
            target = "".join((value or "").split()).lower()
            if name in ("href", "src") and ":" in target.split("/")[0] and not target.startswith(SCHEMES):
                self.active.append(f"{name}={value}")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag in ("blockquote", "li")


def exported(state: ShareState, form: ExportFormat) -> bytes:
    write = EXPORTS[form].pieces
    assert write is not None

    def turn(entry: Entry) -> Turn:
        return Turn(entry.body, [part.body for part in entry.parts])

    outline = state.outline
    files = [file.body for file in outline.files]
    return b"".join(write(Turns(state.session, map(turn, outline.entries), files)))


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_markdown_export_runs_nothing_and_keeps_its_shape(number: int) -> None:
    state = state_of(hostile_session(HOSTILE[number], number))
    text = exported(state, ExportFormat.MARKDOWN).decode()
    found = Findings(text)
    assert found.active == []
    has_changes = any(line == "## Changes" for line in text.split("\n"))
    assert found.headings == 1 + len(state.outline.entries) + has_changes
    assert not {char for char in text if char in "\x00\x07\x1b\x9b\u202e\u2066\u2028"}


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_an_export_for_opencode_is_json_in_which_nothing_is_cut(number: int) -> None:
    state = state_of(hostile_session(HOSTILE[number], number))
    made = json.loads(exported(state, ExportFormat.OPENCODE))
    texts = [part.get("text") for message in made["messages"] for part in message["parts"]]
    assert HOSTILE[number] in texts


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_file_is_called_what_no_header_shell_or_folder_minds(number: int) -> None:
    name = safe_file_name(HOSTILE[number], "file", "text/html")
    assert name
    assert len(name) <= 120
    assert not set(name) & set("/\\<>:\"|?*%;'`$&\r\n\t\0\u202e\u200b")
    assert name not in (".", "..")
    assert not name.startswith((".", " "))
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
