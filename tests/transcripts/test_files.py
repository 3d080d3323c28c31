"""What a file is taken for: opencode's own forms, and files that are none."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rpcshare.transcripts import (
    EXPORTS,
    ExportFormat,
    SessionFile,
    SessionFileError,
    Turn,
    Turns,
    read_session_file,
    read_session_folder,
)

INFO = {"id": "ses_1", "title": "Kites", "directory": "/home/dev", "time": {"created": 1, "updated": 2}}
MESSAGE = {"id": "msg_1", "sessionID": "ses_1", "role": "user", "time": {"created": 1}}
PART = {"id": "prt_1", "messageID": "msg_1", "sessionID": "ses_1", "type": "text", "text": "Hello"}
EXPORT = {"info": INFO, "messages": [{"info": MESSAGE, "parts": [PART]}]}
ITEMS = [
    {"type": "session", "data": INFO},
    {"type": "message", "data": MESSAGE},
    {"type": "part", "data": PART},
]


def items(found: SessionFile) -> list[object]:
    return [item for item, _ in found.items]


def store(folder: Path, session_id: str, created: int = 1) -> None:
    """Write a session as opencode's older versions keep it."""
    files = {
        f"session/global/{session_id}.json": {**INFO, "id": session_id},
        f"message/{session_id}/msg_b{session_id}.json": {
            **MESSAGE,
            "id": "msg_b",
            "time": {"created": created},
        },
        f"message/{session_id}/msg_a{session_id}.json": {
            **MESSAGE,
            "id": "msg_a",
            "time": {"created": created + 1},
        },
        f"part/msg_b{session_id}/prt_2.json": {**PART, "id": "prt_2"},
        f"part/msg_b{session_id}/prt_1.json": PART,
        f"session_diff/{session_id}.json": [{"file": "kites.txt"}],
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "before",
    ["", "Exporting session: ses_1\n", "Exporting session: ses_1\r\n\r\n", "Exporting session: ses_1"],
    ids=["", "a line", "CRLF", "no end of line"],
)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_export_is_read_with_the_line_before_it_as_any_shell_writes_it(before, indent, encoding):
    found = read_session_file((before + json.dumps(EXPORT, indent=indent)).encode(encoding))
    assert (found.kind, found.session_id, items(found)) == ("an opencode export", "ses_1", ITEMS)


def test_messages_of_opencode_s_api_are_read():
    found = read_session_file(json.dumps(EXPORT["messages"]).encode())
    assert (found.session_id, items(found)) == ("ses_1", ITEMS[1:])


@pytest.mark.parametrize("indent", [None, 2])
def test_sync_data_says_whose_it_is(indent):
    assert read_session_file(json.dumps(ITEMS, indent=indent).encode()).session_id == "ses_1"


def test_an_agent_session_says_whose_it_is():
    session = {"session": INFO, "messages": [], "parts": [], "metadata": {"sessionID": "ses_other"}}
    found = read_session_file(json.dumps(session).encode())
    assert (found.kind, found.session_id) == ("an AgentSession", "ses_other")


@pytest.mark.parametrize("inner", ["", "storage"])
def test_a_storage_folder_is_read_in_the_order_of_its_messages(tmp_path, inner):
    store(tmp_path / inner, "ses_1")
    found = read_session_folder(tmp_path)
    names = [(item["type"], item["data"].get("id") if isinstance(item["data"], dict) else item["data"])
             for item in items(found) if isinstance(item, dict)]  # fmt: skip
    assert found.session_id == "ses_1"
    assert names == [
        ("session", "ses_1"),
        ("message", "msg_b"),
        ("part", "prt_1"),
        ("part", "prt_2"),
        ("message", "msg_a"),
        ("session_diff", [{"file": "kites.txt"}]),
    ]


def test_of_several_sessions_in_a_folder_one_is_asked_for(tmp_path):
    store(tmp_path, "ses_1")
    store(tmp_path, "ses_2")
    with pytest.raises(SessionFileError, match=r"holds 2 sessions: name one behind it \(ses_\d, ses_\d\)"):
        read_session_folder(tmp_path)
    assert read_session_folder(tmp_path, "ses_2").session_id == "ses_2"
    with pytest.raises(SessionFileError, match="no session of this id"):
        read_session_folder(tmp_path, "ses_3")


def test_a_file_of_a_folder_that_is_damaged_is_named(tmp_path):
    store(tmp_path, "ses_1")
    (tmp_path / "part" / "msg_bses_1" / "prt_2.json").write_text("{")
    with pytest.raises(SessionFileError, match=r"prt_2\.json: not JSON"):
        read_session_folder(tmp_path)


def database(tmp_path: Path) -> bytes:
    path = tmp_path / "opencode.db"
    connection = sqlite3.connect(path)
    connection.execute("create table a (b)")
    connection.close()
    return path.read_bytes()


UNKNOWN: list[tuple[Any, str]] = [
    (database, "an SQLite database; of opencode's, `opencode export`"),
    (b"%PDF-1.7\n", "a PDF"),
    (b"PK\x03\x04aaaa", "a ZIP archive"),
    (b"\x1f\x8b\x08", "compressed with gzip"),
    (b"<!doctype html><p>", "HTML or XML"),
    (b"# Notes\n\nNothing\n", "text"),
    (b"\x00\x01\xfe\xff", "binary"),
    (b"null", "a single JSON value"),
    (b'{"name": "kite", "version": "1"}', "a JSON object with name, version"),
    (b'[{"name": "kite"}]', "a list of JSON objects with name"),
    (b'{"a": 1}\n{"a": 2}\n', "JSON lines, objects with a"),
    (b'{"\\u001b[31m": 1}', "a JSON object"),
]


@pytest.mark.parametrize(("content", "seems"), UNKNOWN, ids=[seems for _, seems in UNKNOWN])
def test_of_an_unknown_file_it_is_said_what_it_seems_to_be_and_what_is_taken(content, seems, tmp_path):
    with pytest.raises(SessionFileError) as caught:
        read_session_file(content if isinstance(content, bytes) else content(tmp_path))
    told = str(caught.value)
    assert f"seems to be {seems}" in told
    for taken in ("SyncData", "opencode export", "Claude Code", "Codex", "Gemini CLI"):
        assert taken in told


def test_of_a_folder_that_is_none_it_is_said_too(tmp_path):
    (tmp_path / "one.jsonl").write_text("{}")
    with pytest.raises(
        SessionFileError, match="a folder with 1 files of JSON lines: name one of them; taken"
    ):
        read_session_folder(tmp_path)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"info": INFO, "messages": [7]}, r"messages\[0\]: must be"),
        (
            {"info": INFO, "messages": [{"info": MESSAGE, "parts": {}}]},
            r"messages\[0\].parts: must be a list",
        ),
    ],
)
def test_a_fault_of_an_export_is_named_with_its_place(document, place):
    with pytest.raises(SessionFileError, match=place):
        items(read_session_file(json.dumps(document).encode()))


def exported(*parts: dict[str, Any], **message: Any) -> dict[str, Any]:
    """Return what `opencode import` gets of a message."""
    told = {**MESSAGE, **message}
    turn = Turn(json.dumps(told).encode(), [json.dumps({**PART, **part}).encode() for part in parts])
    written = EXPORTS[ExportFormat.OPENCODE].pieces
    assert written is not None
    document = json.loads(b"".join(written(Turns(json.dumps(INFO).encode(), [turn]))))
    found: dict[str, Any] = document["messages"][0]
    return found


@pytest.mark.parametrize(
    ("part", "gone"),
    [
        ({"metadata": None}, "metadata"),
        ({"synthetic": "yes"}, "synthetic"),
        ({"time": {"start": 1, "end": None}}, "time"),
        (
            {"type": "file", "mime": "a/b", "url": "x:", "source": {"start": 1, "end": 2, "text": "@a"}},
            "source",
        ),
        ({"type": "agent", "name": "a", "source": {"start": 1}}, "source"),
        ({"type": "step-start", "snapshot": 7}, "snapshot"),
        ({"type": "subtask", "prompt": "", "description": "", "agent": "", "model": {}}, "model"),
    ],
)
def test_a_field_that_opencode_does_not_need_and_would_not_take_is_left_out_of_an_export(part, gone):
    (written,) = exported(part)["parts"]
    assert written == {name: value for name, value in {**PART, **part}.items() if name != gone}


def test_an_error_that_opencode_does_not_know_is_exported_as_an_unknown_one():
    error = {"name": "provider.rate", "data": {"message": "slow down", "status": 429}}
    written = exported(role="assistant", error=error)["info"]["error"]
    assert (written["name"], written["data"]["message"]) == ("UnknownError", "slow down")


def test_a_retry_without_the_fields_of_one_is_exported_with_them():
    (written,) = exported({"type": "retry", "attempt": 2, "error": {"name": "Whatever", "message": "slow"}})[
        "parts"
    ]
    assert written["error"] == {"name": "APIError", "data": {"isRetryable": True, "message": "slow"}}
    assert written["time"] == {"created": 1}


def test_a_part_that_opencode_does_not_know_is_exported_as_a_text():
    (written,) = exported({"type": "of-the-future", "kites": 7})["parts"]
    assert (written["type"], written["synthetic"]) == ("text", True)
    assert '"kites": 7' in written["text"]
