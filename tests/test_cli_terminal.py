"""What others wrote, as a terminal shows it: on lines, readable, and harmless."""

import io
import json
import re
import time
import unicodedata
from datetime import datetime

import pytest

from rpcshare import ShareEvent
from rpcshare.cli.event_lines import EventLines
from rpcshare.cli.terminal import Column, ago, json_text, print_table, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢字 🎉", "plain é 漢字 🎉"),
        ("two\nlines\tand\r\nmore ", "two lines and more"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bcreset", "creset"),
        ("\x1b\x1b[[31mnested", "31mnested"),
        ("bell\x07 back\x08 del\x7f nul\x00", "bell back del nul"),
        ("right\u202eto left\u2066", "rightto left"),
        ("half \ud83c", "half "),
        ("a\u2028b", "a b"),
        ("👩\u200d💻", "👩\u200d💻"),
    ],
)
def test_text_is_printed_without_what_a_terminal_acts_upon(text, shown):
    assert printable(text) == shown


def test_json_is_printed_with_control_characters_escaped():
    value = {"text": "\x1b \x7f \x9b \u202e \ud83c é"}
    text = json_text(value)
    assert json.loads(text) == value
    assert text.decode().isprintable()


@pytest.mark.slow
def test_of_all_characters_json_shows_those_that_are_seen():
    told = json_text([chr(number) for number in range(0x110000)])
    for char in told.decode():
        assert char in "\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert json.loads(told) == [chr(number) for number in range(0x110000)]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86_399, "23 h ago"),
        (86_400, "1 d ago"),
        (86_400 * 400, "400 d ago"),
    ],
)
def test_a_time_is_told_in_one_unit(seconds, told):
    assert ago(seconds) == told


# --- tables -----------------------------------------------------------------------------------------

URL = "https://share.example.org/a/long/prefix/share/abcdefgh?at=msg_0123456789#m-msg_0123456789"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def table_of(width: int, *rows: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    out = Terminal()
    monkeypatch.setattr("rpcshare.cli.terminal.standard_output", lambda: out)
    monkeypatch.setenv("COLUMNS", str(width))
    columns = (Column("id"), Column("title", without_room="cut"), Column("url", without_room="below"))
    print_table(columns, rows)
    return [printable(line) if line[:1] != " " else line for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [20, 80, 100])
def test_an_address_is_whole_on_a_line_of_its_own_where_there_is_no_room(width, monkeypatch):
    lines = table_of(width, ("a1", "Kites " * 30, URL), ("b2", "漢字 " * 40, URL), monkeypatch=monkeypatch)
    assert lines[2] == lines[4] == f"  {URL}"
    assert [line[:2] for line in lines] == ["id", "a1", "  ", "b2", "  "]


def test_an_address_is_in_its_row_where_there_is_room(monkeypatch):
    lines = table_of(200, ("a1", "Kites", URL), monkeypatch=monkeypatch)
    assert lines == ["id title url", f"a1 Kites {URL}"]


# --- lines of events ------------------------------------------------------------------------------


def clock(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%H:%M:%S")


def told(kind: str, data: object, lines: EventLines | None = None) -> str:
    """Return the line for one item, without its time."""
    event = ShareEvent("sync", "abcdefgh", 1, [{"type": kind, "data": data}])
    (line,) = (lines or EventLines()).of(event)
    return " ".join(line[8:].split())


@pytest.mark.parametrize(
    ("kind", "data", "line"),
    [
        ("session", {"id": "ses_1", "title": "Title", "directory": "/work"}, "session Title /work"),
        ("session", {"id": "ses_1", "title": ""}, "session ses_1"),
        ("message", {"role": "user", "model": {"modelID": "m"}}, "message user m"),
        ("message", {"role": "assistant", "modelID": "m"}, "message assistant m"),
        (
            "message",
            {"role": "assistant", "error": {"name": "APIError", "data": {"message": "overloaded"}}},
            "message assistant APIError overloaded",
        ),
        ("part", {"type": "text", "text": "Two\nlines"}, "text Two lines"),
        ("part", {"type": "reasoning", "text": "So"}, "reasoning So"),
        (
            "part",
            {"type": "tool", "tool": "bash", "state": {"status": "running", "input": {"command": "ls"}}},
            "tool bash running ls",
        ),
        (
            "part",
            {"type": "tool", "tool": "read", "state": {"status": "completed", "title": "app.py"}},
            "tool read completed app.py",
        ),
        (
            "part",
            {"type": "tool", "tool": "read", "state": {"status": "error", "title": "t", "error": "no file"}},
            "tool read error no file",
        ),
        ("part", {"type": "file", "filename": "a.png", "mime": "image/png"}, "file a.png image/png"),
        ("part", {"type": "patch", "files": ["a.py", "b.py"]}, "patch a.py, b.py"),
        ("part", {"type": "step-start"}, "step-start"),
        ("part", {"type": "step-finish", "reason": "stop"}, "step-finish stop"),
        ("part", {"type": "subtask", "description": "look"}, "subtask look"),
        ("part", {"type": "a-type-of-tomorrow"}, "a-type-of-t"),
        ("part", {}, "part"),
        ("session_diff", [{"file": "a.py", "additions": 1, "deletions": 0}], "diff a.py +1 -0"),
        ("session_diff", [], "diff no changes"),
        ("model", [{"id": "m", "providerID": "p"}, {"id": "n"}], "model p/m, n"),
        ("kind-of-tomorrow", {}, "kind-of-tom"),
    ],
)
def test_an_item_is_told_in_a_line(kind, data, line):
    assert told(kind, data) == line


def test_a_text_that_grows_is_told_by_what_has_come():
    lines = EventLines()
    texts = ["I see", "I see a bug", "I see a bug", "No"]
    shown = [told("part", {"id": "prt_1", "type": "text", "text": text}, lines) for text in texts]
    assert shown == ["text I see", "text … a bug", "text I see a bug", "text No"]


def test_texts_of_different_parts_are_told_apart():
    lines = EventLines()
    shown = [told("part", {"id": f"prt_{n}", "type": "text", "text": "I" * n}, lines) for n in (1, 2)]
    assert shown == ["text I", "text II"]


def test_a_part_of_a_snapshot_is_told_behind_its_message():
    items = [("message", {"id": "m1"}), ("message", {"id": "m2"})]
    items += [("part", {"type": part, "messageID": part[0:2]}) for part in ("m2a", "m1a", "m2b", "xx")]
    event = ShareEvent("snapshot", "abcdefgh", 1, [{"type": kind, "data": data} for kind, data in items])
    kinds = [line.split()[0] for line in EventLines().of(event)]
    assert kinds == ["message", "m1a", "message", "m2a", "m2b", "xx"]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("session", {"time": {"created": 1_000, "updated": 1_795_000_000_000}}),
        ("message", {"time": {"created": 1_000, "completed": 1_795_000_000_000}}),
        ("part", {"time": {"start": 1_000, "end": 1_795_000_000_000}}),
        ("part", {"type": "tool", "state": {"time": {"start": 1_000, "end": 1_795_000_000_000}}}),
    ],
)
def test_an_item_s_own_time_is_told(kind, data):
    (line,) = EventLines().of(ShareEvent("snapshot", "abcdefgh", 1, [{"type": kind, "data": data}]))
    assert line.startswith(clock(1_795_000_000_000))


def test_of_a_sync_without_times_the_time_of_its_arrival_is_told(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_795_000_000.0)
    (line,) = EventLines().of(ShareEvent("sync", "abcdefgh", 1, [{"type": "session_diff", "data": []}]))
    assert line.startswith(clock(1_795_000_000_000))


def test_of_a_snapshot_without_times_no_time_is_told():
    (line,) = EventLines().of(ShareEvent("snapshot", "abcdefgh", 1, [{"type": "session_diff", "data": []}]))
    assert line.startswith("          diff")


HOSTILE: list[object] = [
    None,
    True,
    -1,
    1e308,
    10**400,
    "\x1b[2J\x9b\u202e\ud83c",
    "x" * 100_000,
    [],
    [[]],
    [None],
    {},
    {"a": {}},
]
FIELDS = [
    "id", "type", "title", "role", "model", "error", "text", "tool", "state", "files", "name", "time",
    "messageID", "file", "additions",
]  # fmt: skip


@pytest.mark.parametrize("event_type", ["snapshot", "sync"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_no_field_of_whatever_type_can_do_harm(event_type, hostile):
    kinds = ["text", "tool", "file", "patch", "agent", hostile]
    bodies = [{**dict.fromkeys(FIELDS, hostile), "type": kind} for kind in kinds]
    bodies += [{"state": bodies[0], "error": {"data": bodies[0]}, "time": dict.fromkeys(["end"], hostile)}]
    items = [
        {"type": kind, "data": data}
        for kind in ("session", "message", "part", "session_diff", "model", hostile)
        for data in (*bodies, bodies, hostile, [hostile])
    ]
    for line in EventLines().of(ShareEvent(event_type, "abcdefgh", 1, items)):
        assert line.isprintable()
        assert len(line) < 3_000
        assert re.match(r"\d\d:\d\d:\d\d  |          ", line)
