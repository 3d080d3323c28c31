"""A session as Markdown: read by a renderer as what it is, whatever is in it."""

import json
from typing import Any

import pytest
from markdown_it import MarkdownIt

from rpcshare.transcripts import Turn, Turns
from rpcshare.transcripts.markdown import markdown_pieces

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "``` \nnot closed\n## Assistant",
    "~~~~\nnot closed",
    "`a` <b>`<i>`` <u>",
    "# A title\nUser\n====\nUser\n---\n",
    "[x](javascript:alert(1)) [x]( JaVaScRiPt:alert(1)) [x](<javascript:alert(1)>) [x](data:text/html,1)",
    "[x](&#106;avascript:alert(1))",
    "[x]\n\n[x]: javascript:alert(1)",
    "![x](https://example.org/pixel.png)",
    "<javascript:alert(1)>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \u202egnp.exe\x00",
    "---\ntitle: front matter\n---",
    "    <script>",
    "- <script>\n  ```\n  <b>\n",
    "> ```\n<b>",
    "1. ~~~\n   <b>\n~~~\n<u>",
]


def document(*parts: dict[str, Any], title: str = "Kites", role: str = "assistant") -> str:
    session = json.dumps({"id": "ses_1", "title": title, "directory": "/home/dev"}).encode()
    turn = Turn(json.dumps({"id": "m", "role": role}).encode(), [json.dumps(part).encode() for part in parts])
    return b"".join(markdown_pieces(Turns(session, [turn]))).decode()


def rendered(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).render(text))


def text(content: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": content, **fields}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("kind", ["text", "synthetic", "reasoning", "title", "tool", "file", "future"])
def test_what_anybody_wrote_runs_nothing_and_ends_with_itself(hostile: str, kind: str) -> None:
    parts = {
        "text": text(hostile),
        "synthetic": text(hostile, synthetic=True),
        "reasoning": {"type": "reasoning", "text": hostile},
        "title": text("Hello"),
        "tool": {
            "type": "tool",
            "tool": hostile,
            "state": {"status": hostile, "title": hostile, "input": {hostile: hostile}, "output": hostile},
        },
        "file": {"type": "file", "mime": hostile, "filename": hostile, "url": hostile},
        "future": {"type": hostile, "content": hostile},
    }
    made = document(parts[kind], text("The end."), title=hostile if kind == "title" else "Kites")
    html = rendered(made)
    assert html.count("<h1>") == 1
    assert html.count("<h2>") == 1
    assert html.rstrip().endswith("<p>The end.</p>")
    for tag in ("<script", "<img", "<b>", "<u>", "onerror=alert(1)>", 'href="javascript', 'href="data:'):
        assert tag not in html.lower()
    assert not {char for char in made if char in "\x00\x1b\x07\u202e"}


@pytest.mark.parametrize("fence", ["```", "````", "`" * 40])
def test_a_fence_is_longer_than_any_in_what_it_holds(fence: str) -> None:
    output = f"{fence}\ninner\n{fence}\n"
    made = document({"type": "tool", "tool": "bash", "state": {"output": output}})
    assert f"{fence}`text\n{output}{fence}`" in made


def test_a_command_and_its_output_are_blocks() -> None:
    tool = {"type": "tool", "tool": "bash", "state": {"input": {"command": "ls"}, "output": "kites.txt"}}
    assert "```sh\nls\n```" in document(tool)
    assert "```text\nkites.txt\n```" in document(tool)


def test_prose_keeps_its_markdown() -> None:
    code = "```html\n<b>\n```"
    written = f"Some *words*, `<code>` and a [link](https://example.org/).\n\n{code}\n\n- one\n- two"
    assert written in document(text(written))


def test_what_has_changed_is_at_the_end() -> None:
    diff = {"file": "kites.txt", "additions": 1, "deletions": 2, "patch": "@@ -1 +1 @@\n-a\n+b\n"}
    made = b"".join(markdown_pieces(Turns(b"{}", [], [json.dumps(diff).encode()]))).decode()
    assert made.endswith("## Changes\n\n### `kites.txt` +1 -2\n\n```diff\n@@ -1 +1 @@\n-a\n+b\n```\n\n")


@pytest.mark.parametrize("kind", ["text", "reasoning", "tool"])
def test_of_a_very_long_text_the_rest_is_said_to_be_left_out(kind: str) -> None:
    long = "x" * 1_200_000
    state = {"input": {"command": "ls"}, "output": long}
    made = document({"type": kind, "text": long, "tool": "bash", "state": state}, text("The end."))
    assert "*200,000 more characters are in the session's JSON*\n\nThe end." in made
    assert len(made) < 1_001_000


def test_it_takes_linear_time() -> None:
    for hostile in ("`", "` ", "`a``b", "[", "](", "\x1b]", "&", "[x]:", "~~~\n"):
        assert document(text(hostile * 100_000))
