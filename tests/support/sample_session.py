"""A session with one of everything that can be drawn."""

import base64
import struct
import zlib

__all__ = ["SAMPLE", "SESSION_ID", "image_url", "message", "part", "tool"]

SESSION_ID = "ses_pages_sample_everything"
NOW = 1763640000000
DIRECTORY = "/home/dev/ledger"


def image_url() -> str:
    """Return a small PNG of two colours as a ``data:`` URL."""
    width, height = 240, 120
    rows = b"".join(
        b"\0" + b"".join(bytes((40 + x // 2, 120, 110 + y)) for x in range(width)) for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def message(message_id: str, role: str, **fields: object) -> dict[str, object]:
    """Return a message as a SyncData."""
    data: dict[str, object] = {"id": message_id, "sessionID": SESSION_ID, "role": role, "agent": "build"}
    data["time"] = {"created": NOW, "completed": NOW + 8400} if role == "assistant" else {"created": NOW}
    if role == "assistant":
        data |= {"modelID": "sonnet", "providerID": "example", "cost": 0.0312}
        data["tokens"] = {
            "input": 1840,
            "output": 412,
            "reasoning": 90,
            "cache": {"read": 12400, "write": 800},
        }
    return {"type": "message", "data": data | fields}


def part(message_id: str, part_id: str, kind: str, **fields: object) -> dict[str, object]:
    """Return a part as a SyncData."""
    data = {"id": part_id, "messageID": message_id, "sessionID": SESSION_ID, "type": kind}
    return {"type": "part", "data": data | fields}


def tool(
    message_id: str, part_id: str, name: str, given: object, output: object = None, **state: object
) -> dict[str, object]:
    """Return the call of a tool as a SyncData."""
    status = {"status": "completed", "input": given, "time": {"start": NOW, "end": NOW + 1240}}
    if output is not None:
        status["output"] = output
    return part(message_id, part_id, "tool", tool=name, callID=f"call_{part_id}", state=status | state)


PATCH = """\
Index: /home/dev/ledger/src/ledger.py
===================================================================
--- /home/dev/ledger/src/ledger.py
+++ /home/dev/ledger/src/ledger.py
@@ -10,9 +10,12 @@ class Ledger:
     def __init__(self) -> None:
         self.entries: list[Entry] = []
\x20
-    def total(self):
-        return sum(entry.amount for entry in self.entries)
+    def total(self, currency: str = "EUR") -> Decimal:
+        matching = (entry for entry in self.entries if entry.currency == currency)
+        return sum((entry.amount for entry in matching), Decimal())
\x20
     def add(self, entry: Entry) -> None:
+        if entry.amount == 0:
+            raise ValueError("an entry moves something")
         self.entries.append(entry)
"""

ANSWER = """\
The totals were wrong because **amounts of several currencies were added up**. Here is what I changed:

1. `Ledger.total` takes a currency, and only adds what is in it
2. `Ledger.add` refuses an entry that moves nothing
3. The tests cover both

### How to use it

```python
from decimal import Decimal

from ledger import Entry, Ledger

ledger = Ledger()
ledger.add(Entry(Decimal("12.50"), "EUR"))  # a coffee, or two
print(f"{ledger.total('EUR'):.2f}")
```

| currency | entries | total |
|----------|--------:|------:|
| EUR      |      12 | 182.40 |
| USD      |       3 | 40.00 |

> Rounding is still the caller's business: see [the decimal module](https://docs.python.org/3/library/decimal.html).

![a chart](https://example.com/chart.png)
"""

SAMPLE: list[dict[str, object]] = [
    {
        "type": "session",
        "data": {
            "id": SESSION_ID,
            "title": "Totals of several currencies are added up",
            "directory": DIRECTORY,
            "version": "1.18.33",
            "time": {"created": NOW, "updated": NOW + 90000},
        },
    },
    {"type": "model", "data": [{"id": "sonnet", "providerID": "example", "name": "Example Sonnet"}]},
    message("msg_01", "user"),
    part(
        "msg_01",
        "prt_0101",
        "text",
        text="The total in the monthly report is wrong: 222.40 instead of 182.40.\n\n"
        "Please find out why, fix it in src/ledger.py, and add a test. The report is attached.",
    ),
    part("msg_01", "prt_0102", "file", mime="image/png", filename="report.png", url=image_url()),
    part(
        "msg_01",
        "prt_0103",
        "file",
        mime="text/plain",
        filename="report.csv",
        url="data:text/plain,a%2Cb%0A1%2C2",
    ),
    part("msg_01", "prt_0104", "text", synthetic=True, text="Called the read tool on src/ledger.py"),
    part("msg_01", "prt_0105", "agent", name="build"),
    message("msg_02", "assistant"),
    part("msg_02", "prt_0201", "step-start", snapshot="59a1ba604d26e85c532600b33d810dada1c85282"),
    part(
        "msg_02",
        "prt_0202",
        "reasoning",
        text="The report adds up entries. I should look at **how** `total` is computed, "
        "and whether currencies matter.",
        time={"start": NOW, "end": NOW + 4200},
    ),
    part("msg_02", "prt_0203", "text", text="I'll look at how the total is computed first."),
    tool(
        "msg_02",
        "prt_0204",
        "todowrite",
        {
            "todos": [
                {"content": "Find where totals are computed", "status": "completed"},
                {"content": "Fix the sum over currencies", "status": "in_progress"},
                {"content": "Add a test", "status": "pending"},
                {"content": "Rewrite it in another language", "status": "cancelled"},
            ]
        },
    ),
    tool(
        "msg_02",
        "prt_0205",
        "grep",
        {"pattern": r"def total", "path": f"{DIRECTORY}/src"},
        "Found 2 matches\nsrc/ledger.py:\n  Line 14:     def total(self):\n"
        "src/report.py:\n  Line 31:     def totals(ledger):",
        metadata={"matches": 2},
    ),
    tool(
        "msg_02",
        "prt_0206",
        "glob",
        {"pattern": "**/*.py"},
        "src/ledger.py\nsrc/report.py\ntests/test_ledger.py",
        metadata={"count": 3},
    ),
    tool(
        "msg_02",
        "prt_0207",
        "list",
        {"path": DIRECTORY},
        "src/\n  ledger.py\n  report.py\ntests/\n  test_ledger.py",
    ),
    tool(
        "msg_02",
        "prt_0208",
        "read",
        {"filePath": f"{DIRECTORY}/src/ledger.py", "offset": 9},
        "<file>\n00010|     def __init__(self) -> None:\n00011|         self.entries: list[Entry] = []\n"
        "00012| \n00013|     def total(self):\n"
        "00014|         return sum(entry.amount for entry in self.entries)\n</file>",
    ),
    part(
        "msg_02", "prt_0209", "step-finish", reason="tool-calls", cost=0.01, tokens={"input": 10, "output": 5}
    ),
    message("msg_03", "assistant"),
    part("msg_03", "prt_0301", "text", text="There it is: `total` adds up amounts whatever their currency."),
    tool(
        "msg_03",
        "prt_0302",
        "edit",
        {"filePath": f"{DIRECTORY}/src/ledger.py", "oldString": "a", "newString": "b"},
        "Edit applied successfully.",
        metadata={
            "filediff": {"file": f"{DIRECTORY}/src/ledger.py", "patch": PATCH, "additions": 5, "deletions": 2}
        },
    ),
    tool(
        "msg_03",
        "prt_0303",
        "write",
        {
            "filePath": f"{DIRECTORY}/tests/test_currencies.py",
            "content": "from ledger import Ledger\n\n\n"
            'def test_totals_are_of_one_currency():\n    assert Ledger().total("EUR") == 0\n',
        },
        "Wrote file successfully.",
        metadata={
            "exists": False,
            "diagnostics": {"/home/dev/ledger/tests/test_currencies.py": [{"message": "x"}]},
        },
    ),
    tool(
        "msg_03",
        "prt_0304",
        "bash",
        {"command": "pytest -q tests && ruff check .", "description": "Run the tests"},
        "\x1b[32m....\x1b[0m\x1b[31mF\x1b[0m                                        [100%]\n\n"
        "=== FAILURES ===\nE   TypeError: total() takes 1 positional argument but 2 were given\n"
        "1 failed, 4 passed in 0.12s",
        metadata={"exit": 1},
    ),
    tool(
        "msg_03",
        "prt_0305",
        "webfetch",
        {"url": "https://docs.python.org/3/library/decimal.html", "format": "markdown"},
        "# decimal\n\nDecimal fixed-point and floating-point arithmetic",
    ),
    tool(
        "msg_03",
        "prt_0306",
        "task",
        {
            "description": "Look for other sums",
            "prompt": "Search the repository for sums over amounts.",
            "subagent_type": "explore",
        },
        "There is **one more**: `report.totals` in `src/report.py`.",
        metadata={"summary": [{"tool": "grep", "state": {"status": "completed", "title": "amount"}}]},
    ),
    tool(
        "msg_03",
        "prt_0307",
        "tracker_find_issue",
        {"project": "ledger", "query": "currency", "open": True},
        '{"issues": []}',
    ),
    tool(
        "msg_03",
        "prt_0308",
        "weather_deep",
        {"place": {"city": "Lyon", "days": [1, 2]}, "unit": "C"},
        "sunny",
    ),
    tool(
        "msg_03",
        "prt_0309",
        "question",
        {
            "questions": [
                {
                    "question": "Which currency is the default?",
                    "options": [{"label": "EUR"}, {"label": "USD"}],
                }
            ]
        },
        metadata={"answers": [["EUR"]]},
    ),
    part(
        "msg_03",
        "prt_0310",
        "retry",
        attempt=2,
        error={"name": "APIError", "data": {"message": "Overloaded"}},
    ),
    tool(
        "msg_03",
        "prt_0311",
        "read",
        {"filePath": f"{DIRECTORY}/missing.txt"},
        status="error",
        error=f"File not found: {DIRECTORY}/missing.txt",
    ),
    part(
        "msg_03",
        "prt_0312",
        "patch",
        hash="a7965500",
        files=[f"{DIRECTORY}/src/ledger.py", f"{DIRECTORY}/tests/test_currencies.py"],
    ),
    part("msg_03", "prt_0313", "snapshot", snapshot="59a1ba604d26e85c"),
    part("msg_03", "prt_0314", "subtask", prompt="Review the change", description="Review", agent="review"),
    part("msg_03", "prt_0315", "hologram", data={"depth": 3}),
    part("msg_03", "prt_0316", "text", text=ANSWER),
    message("msg_04", "user"),
    part("msg_04", "prt_0401", "text", text="Thanks! Now do the same for report.totals."),
    message("msg_05", "assistant", error={"name": "MessageAbortedError", "data": {"message": "aborted"}}),
    part("msg_05", "prt_0501", "text", text="Looking at `report.totals` now, which"),
    message("msg_06", "user"),
    part("msg_06", "prt_0601", "compaction", auto=True, overflow=True),
    message("msg_07", "assistant", summary=True),
    part(
        "msg_07",
        "prt_0701",
        "text",
        text="The user wants totals by currency. `Ledger.total` is done; `report.totals` is open.",
    ),
    message(
        "msg_08",
        "assistant",
        error={"name": "APIError", "data": {"message": "Overloaded", "statusCode": 529}},
    ),
    message("msg_09", "user"),
    part("msg_09", "prt_0901", "text", text="Go on, please."),
    message("msg_10", "assistant", time={"created": NOW + 80000}),
    tool(
        "msg_10",
        "prt_1001",
        "bash",
        {"command": "for i in 1 2 3; do echo line $i; sleep 1; done", "description": "Slow output"},
        status="running",
        metadata={"output": "line 1\nline 2\n"},
        time={"start": NOW + 80000},
    ),
    tool("msg_10", "prt_1002", "edit", {}, status="pending", time={"start": 0}),
    {
        "type": "session_diff",
        "data": [
            {"file": "src/ledger.py", "patch": PATCH, "additions": 5, "deletions": 2, "status": "modified"},
            {
                "file": "tests/test_currencies.py",
                "before": "",
                "after": "from ledger import Ledger\n\n\n"
                "def test_totals():\n    assert Ledger().total() == 0\n",
                "additions": 5,
                "deletions": 0,
                "status": "added",
            },
            {
                "file": "notes.txt",
                "before": "old\nnotes\n",
                "after": "",
                "additions": 0,
                "deletions": 2,
                "status": "deleted",
            },
        ],
    },
]
