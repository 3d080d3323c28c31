"""Transcripts of Claude Code, Codex, Gemini CLI and opencode 2, in their shapes: no entry of them is lost.

Each entry of the fixtures has a word of its own, such as ``e07``.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rpcshare.shares.syncdata import parse_batch
from rpcshare.transcripts import SessionFileError, read_session_file

FIXTURES = Path(__file__).parents[1] / "fixtures" / "transcripts"
ALL = sorted(path.name for path in FIXTURES.iterdir())
OF_LINES = [name for name in ALL if name.endswith(".jsonl")]


class Session:
    """What a file was read as."""

    def __init__(self, content: bytes, session_id: str | None = None) -> None:
        found = read_session_file(content, session_id)
        self.kind = found.kind
        self.session_id = found.session_id
        self.items: list[dict[str, Any]] = [item for item, _ in found.items if isinstance(item, dict)]
        self.session = next(item["data"] for item in self.items if item["type"] == "session")
        self.messages = [item["data"] for item in self.items if item["type"] == "message"]
        self.parts = [item["data"] for item in self.items if item["type"] == "part"]

    def part_with(self, word: str) -> dict[str, Any]:
        """Return the only part in which a word is."""
        (part,) = [part for part in self.parts if word in json.dumps(part)]
        return part

    def tool(self, call_id: str) -> dict[str, Any]:
        (part,) = [part for part in self.parts if part.get("callID") == call_id]
        return part


def lines(*entries: object) -> bytes:
    return "".join(f"{json.dumps(entry)}\n" for entry in entries).encode()


@pytest.fixture
def claude() -> Session:
    return Session((FIXTURES / "claude-code.jsonl").read_bytes())


@pytest.fixture
def codex() -> Session:
    return Session((FIXTURES / "codex.jsonl").read_bytes())


@pytest.fixture
def gemini() -> Session:
    return Session((FIXTURES / "gemini-session.json").read_bytes())


@pytest.mark.parametrize("name", ALL)
def test_every_entry_is_in_a_part_and_stays_in_its_place(name):
    content = (FIXTURES / name).read_bytes()
    session = Session(content, "given")
    shown = [json.dumps(part) for part in session.parts]
    words = sorted(set(re.findall(r"\be\d\d", content.decode())))
    assert [word for word in words if not any(word in part for part in shown)] == []


@pytest.mark.parametrize("name", ALL)
def test_what_is_made_of_a_transcript_is_taken_by_the_server(name):
    session = Session((FIXTURES / name).read_bytes(), "given")
    assert parse_batch(session.items).items


@pytest.mark.parametrize("name", ALL)
def test_messages_and_parts_are_sorted_by_id_and_by_time(name):
    session = Session((FIXTURES / name).read_bytes(), "given")
    ids = [message["id"] for message in session.messages]
    times = [message["time"]["created"] for message in session.messages]
    parts = [part["id"] for part in session.parts]
    assert (ids, times, parts) == (sorted(set(ids)), sorted(times), sorted(set(parts)))


@pytest.mark.parametrize(
    ("name", "kind", "session_id"),
    [
        ("claude-code.jsonl", "a Claude Code transcript", "7d0c2c1e-5b0b-4a52-9c55-0a6c2f7a1b10"),
        ("codex.jsonl", "a Codex transcript", "0199a3b1-7c00-7e10-9d33-2b5a6f1c0d01"),
        ("codex-2025-06.jsonl", "a Codex transcript", "5973b6c0-94b8-487b-a530-2aeb6098ae0e"),
        ("codex-2025-04.json", "a Codex transcript", "5f2c1a7b0d"),
        ("gemini-session.json", "a Gemini CLI transcript", "3b6b1c2e-90a1-4b8b-8a77-1f0c0a9d2e55"),
        ("gemini-session.jsonl", "a Gemini CLI transcript", "3b6b1c2e-90a1-4b8b-8a77-1f0c0a9d2e55"),
        ("gemini-logs.json", "a log of Gemini CLI", "3b6b1c2e-90a1-4b8b-8a77-1f0c0a9d2e55"),
        ("gemini-checkpoint.json", "a checkpoint of Gemini CLI", None),
        ("opencode-2.json", "an export of opencode 2", "ses_kites2"),
    ],
)
def test_the_kind_and_the_session_are_the_file_s_own(name, kind, session_id):
    session = Session((FIXTURES / name).read_bytes())
    assert (session.kind, session.session_id) == (kind, session_id)


@pytest.mark.parametrize("name", OF_LINES)
def test_a_transcript_that_grows_keeps_the_ids_of_what_was_there(name):
    content = (FIXTURES / name).read_bytes()
    half = content[: content.index(b"\n", len(content) // 2) + 1]
    before = [message["id"] for message in Session(half).messages]
    assert [message["id"] for message in Session(content).messages][: len(before)] == before


def test_claude_entries_of_one_answer_are_one_message(claude):
    answer = [claude.part_with(word)["messageID"] for word in ("e08", "e09", 'toolu_01", "state')]
    assert len(set(answer)) == 1
    (message,) = [message for message in claude.messages if message["id"] == answer[0]]
    assert message["tokens"] == {
        "input": 4,
        "output": 55,
        "reasoning": 0,
        "cache": {"read": 8000, "write": 1200},
    }
    assert (message["modelID"], message["finish"]) == ("claude-sonnet-4-5", "tool_use")


def test_claude_results_are_those_of_their_calls(claude):
    read, edit, bash, mcp = (claude.tool(f"toolu_0{number}") for number in (1, 2, 3, 4))
    assert (read["tool"], read["state"]["input"]) == ("read", {"filePath": "/home/dev/kite/kites.txt"})
    assert "red e11" in read["state"]["output"]
    assert edit["state"]["input"]["newString"] == "green e12"
    assert edit["state"]["metadata"]["filediff"]["additions"] == 1
    assert "+green e12" in edit["state"]["metadata"]["diff"]
    assert (bash["state"]["status"], bash["state"]["error"]) == ("error", "wc: e16 failed")
    assert mcp["tool"] == "mcp__weather__wind"
    assert [file["mime"] for file in mcp["state"]["attachments"]] == ["image/png"]


def test_claude_files_of_a_prompt_are_files(claude):
    files = [(part["mime"], part.get("filename")) for part in claude.parts if part["type"] == "file"]
    assert files == [("image/png", None), ("application/pdf", "e23.pdf")]


def test_claude_what_nobody_typed_is_marked_so(claude):
    assert [claude.part_with(word).get("synthetic") for word in ("e05", "e09", "e30")] == [True, None, True]


def test_claude_the_title_is_the_best_there_is(claude):
    assert claude.session["title"] == "Kites counted e34"
    assert claude.session["directory"] == "/home/dev/kite"


def test_a_title_is_made_of_the_first_prompt_where_there_is_none(codex):
    assert codex.session["title"] == "How many kites? e06"


def test_claude_a_line_that_is_cut_off_is_kept(claude):
    assert "cut off in the middle" in claude.part_with("e38")["text"]


def test_codex_what_events_say_again_is_shown_once(codex):
    for word in ("e07", "e09", "e28", "e29"):
        codex.part_with(word)


def test_codex_the_same_prompt_again_is_another_prompt(codex):
    prompts = [part for part in codex.parts if part.get("text") == "How many kites? e06"]
    assert len(prompts) == 2


def completed(kind: str, **item: object) -> dict[str, object]:
    payload = {"type": "item_completed", "turn_id": "1", "item": {"type": kind, "id": kind, **item}}
    return {"timestamp": "2026-08-07T10:00:00Z", "type": "event_msg", "payload": payload}


COMPLETED: list[dict[str, Any]] = [
    {"timestamp": "2026-08-07T10:00:00Z", "type": "session_meta", "payload": {"id": "c0dex", "cwd": "/d"}},
    completed("UserMessage", content=[{"type": "text", "text": "Fly a kite"}]),
    completed("Reasoning", summary_text=["Which kite?"]),
    completed("CommandExecution", command="ls", exit_code=1, stdout="kites", stderr="!"),
    completed("AgentMessage", content=[{"type": "Text", "text": "It flies"}]),
]


def test_codex_items_that_are_completed_are_read_where_nothing_else_tells_of_them():
    parts = [
        part for part in made_of(COMPLETED) if part["type"] != "text" or "session_meta" not in part["text"]
    ]
    assert [(part["type"], part.get("text") or part["tool"]) for part in parts] == [
        ("text", "Fly a kite"),
        ("reasoning", "Which kite?"),
        ("tool", "bash"),
        ("text", "It flies"),
    ]
    state = parts[2]["state"]
    assert (state["status"], state["input"]) == ("error", {"command": "ls"})


def test_codex_items_that_are_completed_are_shown_once():
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fly a kite"}]}
    entries = [*COMPLETED[:1], {**COMPLETED[0], "type": "response_item", "payload": said}, *COMPLETED[1:]]
    assert [part.get("text") for part in made_of(entries)].count("Fly a kite") == 1


def test_codex_what_comes_before_a_model_is_named_is_of_the_model_that_is():
    turn = {**COMPLETED[0], "type": "turn_context", "payload": {"model": "gpt-5-codex"}}
    found: list[Any] = [
        each.item for each in read_session_file(lines(*COMPLETED[:1], turn, *COMPLETED[1:])).items
    ]
    models = {each["data"].get("modelID") for each in found if each["type"] == "message"} - {None}
    assert models == {"gpt-5-codex"}


def made_of(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = read_session_file(lines(*entries)).items
    items: list[Any] = [each.item for each in found]
    return [item["data"] for item in items if item["type"] == "part"]


def test_codex_calls_have_their_results(codex):
    first, second, patch = (codex.tool(f"call_{number}") for number in (1, 2, 3))
    assert (first["tool"], first["state"]["input"]["command"]) == ("bash", "wc -l kites.txt # e10")
    assert (second["state"]["input"]["command"], second["state"]["output"]) == ("false # e12", "e13 nothing")
    assert second["state"]["metadata"]["exit"] == 1
    assert patch["state"]["input"]["patchText"].startswith("*** Begin Patch")
    assert patch["state"]["metadata"]["patch_apply_end"]["stdout"] == "Success. e16"


def test_codex_tokens_are_those_of_the_answer(codex):
    (step,) = [part for part in codex.parts if part["type"] == "step-finish"]
    assert step["tokens"] == {
        "input": 400,
        "output": 30,
        "reasoning": 10,
        "cache": {"read": 500, "write": 0},
    }


def test_gemini_calls_thoughts_and_tokens_are_those_of_the_answer(gemini):
    read, edit, shell, search = (
        gemini.tool(call) for call in ("read_file-1", "replace-2", "run_shell_command-3", "web-4")
    )
    assert read["state"]["output"] == "red e06\nblue"
    assert "+green e08" in edit["state"]["metadata"]["diff"]
    assert (shell["tool"], shell["state"]["error"]) == ("bash", "e11 failed")
    assert search["state"]["status"] == "error"
    assert gemini.part_with("e05")["text"] == "**Looking e04**\n\nIn the file e05"
    (answer,) = [each for each in gemini.messages if each["id"] == read["messageID"]]
    assert (answer["tokens"]["input"], answer["tokens"]["cache"]["read"]) == (500, 1000)


def test_gemini_a_message_that_has_grown_is_there_once_as_it_was_last():
    session = Session((FIXTURES / "gemini-session.jsonl").read_bytes())
    assert session.part_with("e03")["text"] == "I look. e03"
    assert session.tool("read_file-1")["state"]["status"] == "completed"
    assert session.session["title"] == "Counting kites e21"


def test_gemini_messages_without_ids_are_messages_as_well():
    chat = json.loads((FIXTURES / "gemini-session.json").read_text())
    whole = Session(json.dumps(chat).encode())
    for message in chat["messages"]:
        del message["id"]
    without = Session(json.dumps(chat).encode())
    assert [part["type"] for part in without.parts] == [part["type"] for part in whole.parts]
    assert [message["role"] for message in without.messages] == [each["role"] for each in whole.messages]


def test_gemini_a_log_of_several_sessions_is_read_for_the_one_asked_for():
    log = [
        {
            "sessionId": each,
            "messageId": 0,
            "type": "user",
            "message": f"in {each}",
            "timestamp": "2026-01-05T08:00:01Z",
        }
        for each in ("first", "second")
    ]
    session = Session(json.dumps(log).encode(), "first")
    assert [part["text"] for part in session.parts] == ["in first"]


@pytest.mark.parametrize(
    "name", ["claude-code.jsonl", "codex.jsonl", "gemini-session.jsonl", "opencode-2.json"]
)
def test_what_comes_before_the_first_prompt_is_context_in_the_same_message(name):
    session = Session((FIXTURES / name).read_bytes())
    first = [part for part in session.parts if part["messageID"] == session.messages[0]["id"]]
    assert session.messages[0]["role"] == "user"
    (typed,) = [part["text"] for part in first if part["type"] == "text" and not part.get("synthetic")]
    assert "kites" in typed


def claude_prompt(content: object, **more: object) -> dict[str, object]:
    return {"type": "user", "sessionId": "c", "message": {"role": "user", "content": content}, **more}


def codex_prompt(*texts: str) -> dict[str, object]:
    content = [{"type": "input_text", "text": text} for text in texts]
    return {"type": "response_item", "payload": {"type": "message", "role": "user", "content": content}}


def gemini_prompt(content: object) -> dict[str, object]:
    return {"type": "user", "id": "1", "content": content}


NOTIFIED = "<task-notification>\n<task-id>b1</task-id>\n<status>completed</status>\n</task-notification>"
SURROUNDINGS = "<environment_context>\n  <cwd>/d</cwd>\n</environment_context>"
IDE = "# Context from my IDE setup:\n\n## Active file: a.py\n\n## My request for Codex:\nFly a kite"


@pytest.mark.parametrize(
    ("entries", "context", "typed"),
    [
        ([claude_prompt(NOTIFIED)], ["task-notification"], []),
        ([claude_prompt("<local-command-stdout>ok</local-command-stdout>")], ["local-command-stdout"], []),
        ([claude_prompt("<system-reminder>Be kind.</system-reminder>\nFly")], ["system-reminder"], ["Fly"]),
        (
            [claude_prompt("<ide_opened_file>a.py is open</ide_opened_file>Fly")],
            ["ide_opened_file"],
            ["Fly"],
        ),
        ([codex_prompt(SURROUNDINGS, "Fly")], ["environment_context"], ["Fly"]),
        ([codex_prompt(f"{SURROUNDINGS}\n\nFly")], ["environment_context"], ["Fly"]),
        ([codex_prompt("# AGENTS.md instructions for /d\n\nFly")], ["AGENTS.md"], []),
        ([codex_prompt(IDE)], ["IDE context"], ["Fly a kite"]),
        ([gemini_prompt("<session_context>\nx\n</session_context>\nFly")], ["session_context"], ["Fly"]),
    ],
)
def test_what_programs_put_into_a_prompt_is_context_and_no_title(entries, context, typed):
    is_gemini = "content" in entries[0]
    head = {"sessionId": "g", "projectHash": "p"} if is_gemini else {"type": "summary", "sessionId": "c"}
    session = Session(lines(head, *entries), "given")
    parts = session.parts[1:]
    assert [part["metadata"]["entry"] for part in parts if part.get("synthetic")] == context
    assert [part["text"] for part in parts if not part.get("synthetic")] == typed
    assert session.session["title"] == "".join(typed)


@pytest.mark.parametrize(
    ("sent", "typed"),
    [
        (
            "<command-name>/review</command-name>\n<command-message>review</command-message>\n"
            "<command-args>PR 12</command-args>",
            "/review PR 12",
        ),
        ("<bash-input>ls -l</bash-input>", "! ls -l"),
        ("<div>\nWhy is this not centred?\n</div>", "<div>\nWhy is this not centred?\n</div>"),
        ("Why is <system-reminder> here?", "Why is <system-reminder> here?"),
    ],
)
def test_claude_commands_are_shown_as_they_were_typed(sent, typed):
    session = Session(lines(claude_prompt(sent)))
    assert [part["text"] for part in session.parts] == [typed]


def test_gemini_messages_that_a_chat_sets_all_at_once_are_messages():
    head = {"sessionId": "g", "projectHash": "p", "startTime": "2026-05-01T10:00:00Z"}
    said = [
        {"id": str(n), "type": kind, "content": f"{kind} {n}"} for n, kind in enumerate(("user", "gemini"))
    ]
    again = [*said, {"id": "2", "type": "user", "content": "user 2"}]
    session = Session(lines(head, {"$set": {"messages": said}}, {"$set": {"messages": again}}))
    assert [message["role"] for message in session.messages] == ["user", "assistant", "user"]
    texts = [part["text"] for part in session.parts if not part.get("synthetic")]
    assert texts == ["user 0", "gemini 1", "user 2"]


@pytest.fixture
def opencode2() -> Session:
    return Session((FIXTURES / "opencode-2.json").read_bytes())


def test_opencode_2_messages_are_those_of_version_1(opencode2):
    assert opencode2.session["directory"] == "/home/dev/kite"
    prompt, answer = opencode2.messages[:2]
    assert (prompt["role"], prompt["model"]["modelID"]) == ("user", "kite-2")
    assert (answer["role"], answer["parentID"], answer["modelID"], answer["providerID"]) == (
        "assistant",
        prompt["id"],
        "kite-2",
        "example",
    )
    assert (answer["cost"], answer["tokens"]["cache"]["read"], answer["finish"]) == (0.011, 400, "stop")
    failed = next(message for message in opencode2.messages if message.get("error"))
    assert failed["error"]["data"]["message"] == "refused"


def test_opencode_2_calls_have_their_results(opencode2):
    read, shell, edit, shot, write = (opencode2.tool(f"call_{n}")["state"] for n in (1, 2, 3, 5, 6))
    assert (read["status"], read["time"]["end"] - read["time"]["start"]) == ("completed", 100)
    assert (shell["status"], shell["error"]) == ("error", "e10 failed")
    assert edit["metadata"]["files"][0]["file"] == "kites.txt"
    assert (shot["attachments"][0]["mime"], shot["attachments"][0]["filename"]) == ("image/png", "e17.png")
    assert (write["status"], write["input"]) == ("pending", {})


def test_opencode_2_commands_of_the_user_are_calls(opencode2):
    state = opencode2.tool("sh_1")["state"]
    assert (state["input"]["command"], state["output"]) == ("ls e22", "kites.txt e23")
    assert state["metadata"]["exit"] == 1


HOSTILE: list[object] = [
    None,
    True,
    7,
    1.5,
    "text",
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    "2026-99-99",
    "\ud800",
    10**30,
]


@pytest.mark.parametrize("name", OF_LINES)
def test_a_field_of_any_other_type_is_no_failure(name):
    entries = [json.loads(line) for line in (FIXTURES / name).read_text().splitlines() if line.endswith("}")]
    for index, entry in enumerate(entries):
        for path in paths(entry):
            for value in HOSTILE:
                # With those before it, which may be what it refers to.
                changed = [*entries[max(0, index - 2) : index], replaced(entry, path, value)]
                try:
                    items = Session(lines(*changed), "given").items
                except SessionFileError:
                    continue
                for item in items:
                    assert item["type"] in ("session", "message", "part", "model")
    assert entries


def paths(value: object, so_far: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return where in a JSON value there is something, to a depth of four."""
    if len(so_far) == 4:
        return [so_far]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [so_far, *(path for key, each in inner for path in paths(each, (*so_far, key)))][not so_far :]


def replaced(value: Any, path: tuple[str | int, ...], new: object) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy
