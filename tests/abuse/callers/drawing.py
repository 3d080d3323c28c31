"""Callers who share text that is slow to draw, and look at it."""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pygments.lexers import get_all_lexers

from abuse.target import Target

LEXERS = sorted(aliases[0] for _, aliases, _, _ in get_all_lexers() if aliases)
PIECES = (
    " ",
    "\n",
    "\t",
    "(",
    "[",
    "{",
    "<",
    "'",
    '"',
    "\\",
    "/*",
    "#",
    "a",
    "0",
    "_",
    "-",
    ":",
    ";",
    "|",
    "`",
    "*",
    "$",
    "%",
    "@",
    "~",
    "CMD",
    "<!--",
    "{%",
    "<?",
    "://",
)
SHAPES: tuple[Callable[[str, str, int], str], ...] = (
    lambda a, b, n: a * n,
    lambda a, b, n: (a + b) * (n // 2),
    lambda a, b, n: a * (n // 2) + b * (n // 2),
    lambda a, b, n: b + a * n + "x",
    lambda a, b, n: ("x" + a) * (n // 2) + b,
    lambda a, b, n: "\n".join([a * 40 + b] * (n // 41)),
)
LENGTH = 5_500
READERS = 4


def repeated(rng: random.Random, length: int = LENGTH) -> str:
    """Return text in which something short is repeated in some way."""
    one, other = rng.choice(PIECES), rng.choice(PIECES)
    return rng.choice(SHAPES)(one, other, length // max(len(one), len(other)))[:length]


def text_part(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def tool_part(name: str, **state: object) -> dict[str, object]:
    return {"type": "tool", "tool": name, "state": {"status": "completed", "input": {}, **state}}


def highlighting(rng: random.Random) -> Iterator[dict[str, object]]:
    for language in rng.sample(LEXERS, 50):
        yield text_part(f"```{language}\n{repeated(rng)}\n```")


def markdown(rng: random.Random) -> Iterator[dict[str, object]]:
    marks = (
        "[",
        "![",
        "](",
        "**a",
        "__a ",
        "*a_",
        "`",
        "``",
        "> ",
        "- ",
        "<",
        "&",
        "\\",
        "~~",
        "|a",
        "[a]: ",
        "<a@b",
        "http://a",
        "1. ",
        "# ",
        "![[]()",
        "[]",
        "a**b",
        "***",
        "\n\n",
        "[^",
        "a\n=\n",
        "<!-",
    )
    for _ in range(50):
        chosen = rng.sample(marks, rng.choice((1, 1, 2, 3)))
        yield text_part(("".join(chosen) * 16_000)[: rng.choice((4_000, 15_000))])


def tables(rng: random.Random) -> Iterator[dict[str, object]]:
    for _ in range(50):
        columns, rows = rng.choice(((300, 200), (99, 100), (5000, 2), (1, 4000), (60, 160)))
        yield text_part("|a" * columns + "\n" + "|-" * columns + "\n" + "a\n" * rows)


def tools(rng: random.Random) -> Iterator[dict[str, object]]:
    words = (
        "<content>",
        "</content>",
        "<file>\n",
        "(End of file",
        "\x1b[",
        "\x1b]",
        "\r",
        "00001| ",
        "task_id:",
        "<task_result>",
        "&",
    )
    for _ in range(50):
        output = "".join(rng.choice(words) for _ in range(3)) * 6_000
        yield tool_part(rng.choice(("read", "bash", "task", "grep", "edit", "unknown")), output=output)


def comparing(rng: random.Random) -> Iterator[dict[str, object]]:
    for _ in range(50):
        lines = [rng.choice(("a", "b", "x%d")) for _ in range(rng.choice((3, 700)))]
        before = "".join(f"{line}\n".replace("%d", str(place)) for place, line in enumerate(lines * 2))
        edits = [{"oldString": before, "newString": "t\n" + "a\nb\n" * rng.choice((90, 390))}] * 20
        yield tool_part("multiedit", input={"filePath": "/f", "edits": edits})


def data(share: int, parts: Iterator[dict[str, object]]) -> list[object]:
    items: list[object] = [{"type": "message", "data": {"id": "m", "role": "assistant"}}]
    for number, part in enumerate(parts):
        items.append({"type": "part", "data": {"id": f"p{share}-{number}", "messageID": "m", **part}})
    return items


def looking(make: Callable[[random.Random], Iterator[dict[str, object]]]) -> Callable[..., None]:
    """Return the kind of caller that shares what ``make`` makes, at which several readers look at once."""

    def abuse(target: Target, rng: random.Random, seconds: float) -> None:
        deadline, number = time.monotonic() + seconds, 0
        with ThreadPoolExecutor(READERS) as readers:
            while time.monotonic() < deadline:
                share = target.create_share(f"ses_abuse_drawing_{number:04}")
                target.sync(share, data(number, make(rng)))
                paths = [f"/share/{share['id']}", f"/share/{share['id']}/part/p{number}-0"] * (READERS // 2)
                list(readers.map(lambda path: look(target, path), paths))
                target.request("DELETE", f"/api/share/{share['id']}", {"secret": share["secret"]})
                number += 1

    return abuse


def look(target: Target, path: str) -> None:
    with suppress(OSError, http.client.HTTPException):
        status = target.request("GET", path, headers={}).status
        assert status in (200, 503), status


def diffs_of_files(target: Target, rng: random.Random, seconds: float) -> None:
    """Look at files of which two versions are alike."""
    deadline, number = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        share = target.create_share(f"ses_abuse_files_{number:04}")
        repeat = rng.choice(("a\n", "}\n", "\n", "a\nb\n"))
        before = "s\n" + "".join(repeat if place % 2 else f"x{place}\n" for place in range(790)) + "e\n"
        files = [
            {"file": f"f{each}", "before": before, "after": "t\n" + repeat * 197 + "g\n"}
            for each in range(60)
        ]
        target.sync(share, [{"type": "session_diff", "data": files}])
        for layout in ("", "&layout=split", "&file=1"):
            look(target, f"/share/{share['id']}?view=changes{layout}")
        target.request("DELETE", f"/api/share/{share['id']}", {"secret": share["secret"]})
        number += 1


KINDS = {
    "drawing-files": diffs_of_files,
    **{
        f"drawing-{make.__name__}": looking(make)
        for make in (highlighting, markdown, tables, tools, comparing)
    },
}
