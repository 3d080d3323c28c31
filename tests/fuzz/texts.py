"""JSON that is kept as text, held against what the general code decodes and encodes.

``python -m tests.fuzz.texts [--modules FOLDER] [--seconds N] [--seed N]`` does so at random. In ``FOLDER``
are the modules in C compiled in another way, as ``make sanitize`` does.
"""

import argparse
import importlib.util
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.short_messages import ODD, STRINGS, expression, plain, read_generally
from rpcshare import jsontext
from rpcshare.rpc.codec import JSON
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.session import Session
from rpcshare.shares.batch_validation import RefusedError, TooManyError, checked

HEAD = b'["push",["pipeline",0,["name"],['
KINDS = ("session", "message", "part", "session_diff", "model")
CLASSES = bytes(ord("x") if byte in b"ab-" else ord(" ") for byte in range(256))

_USUAL_STRINGS = [each for each in STRINGS if each != "\ud800"]

# What is put into a text at random.
_PUT = [
    b"",
    b"",
    b'"',
    b"\\",
    b"[",
    b"]",
    b"[[",
    b"]]",
    b"{",
    b"}",
    b",",
    b":",
    b" ",
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\\u0041",
    b"\\u001b",
    b"\\u000a",
    b"\\ud83d",
    b"\\/",
    b'"id":"a",',
    b'"a":1,"a":2',
    *(odd.encode() for odd in ODD),
    b"0.1",
    b"0.10",
    b"0.30000000000000004",
    b"0.3000000000000000444",
    b"123456789012345.6",
    b"0.00001",
]


def compact(value: object, *, ascii_only: bool) -> bytes:
    """Return the text of a value as JavaScript writes it, or with escapes for all that is not ASCII."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)
    return text.encode("utf-8", "surrogatepass")


def spoilt(text: bytes, choose: random.Random) -> bytes:
    """Return ``text`` with something else in some places."""
    for _ in range(choose.randrange(1, 4)):
        at = choose.randrange(len(text) + 1)
        text = text[:at] + choose.choice(_PUT) + text[at + choose.randrange(4) :]
    return text


def wrapped(value: object) -> object:
    """Return the expression of a plain value."""
    if isinstance(value, list):
        return [[wrapped(item) for item in value]]
    if isinstance(value, dict):
        return {name: wrapped(item) for name, item in value.items()}
    return value


def value(choose: random.Random) -> object:
    """Return a value of JSON: nine of ten are of the usual form."""
    return plain(choose) if choose.random() < 0.1 else _usual(choose, 0)


def _usual(choose: random.Random, depth: int) -> object:
    kind = choose.randrange(6 if depth < 5 else 4)
    if kind < 2:
        return choose.choice(_USUAL_STRINGS)
    if kind == 2:
        return choose.choice(
            [choose.randrange(-(2**53), 2**53) >> choose.randrange(54), choose.random(), 0.1, 2.5]
        )
    if kind == 3:
        return choose.choice([None, True, False])
    items = [_usual(choose, depth + 1) for _ in range(choose.randrange(5))]
    return items if kind == 4 else {choose.choice(_USUAL_STRINGS): item for item in items}


def call(choose: random.Random) -> tuple[bytes, int]:
    """Return the frame of a call, and an argument of it that may be of plain JSON."""
    count = choose.randrange(1, 4)
    arguments = [
        expression(choose) if choose.random() < 0.3 else wrapped(value(choose)) for _ in range(count)
    ]
    text = HEAD + compact(arguments, ascii_only=choose.random() < 0.1)[1:-1] + b"]]]"
    return text if choose.random() < 0.5 else spoilt(text, choose), choose.randrange(count)


def batch(choose: random.Random) -> bytes:
    """Return the text of a batch, half of which are malformed in one place or more."""
    elements = []
    for _ in range(choose.randrange(6)):
        kind = "other" if choose.random() < 0.02 else choose.choice(KINDS)
        data: object = _item(choose)
        if kind in ("session_diff", "model") or choose.random() < 0.05:
            data = [_item(choose) for _ in range(choose.randrange(4))]
        elements.append({"type": kind, "data": data} | ({"more": 1} if choose.random() < 0.05 else {}))
    text = compact(elements, ascii_only=choose.random() < 0.1)
    return text if choose.random() < 0.5 else spoilt(text, choose)


def _item(choose: random.Random) -> object:
    if choose.random() < 0.05:
        return value(choose)
    fields = {name: value(choose) for name in choose.sample(_USUAL_STRINGS, 2)}
    names = ["id", "providerID", "text"]
    choose.shuffle(names)
    ids = ["m1", "é", "x\n"]
    return fields | {name: value(choose) if choose.random() < 0.03 else choose.choice(ids) for name in names}


def check_argument(module: Any, frame: bytes, index: int, session: Session) -> bool:
    """Return whether the argument is found; its text is that of the value which the general way decodes."""
    found = module.find(frame, len(HEAD), index, session.max_depth) if frame.startswith(HEAD) else None
    if found is None:
        return False
    start, stop, text, values = found
    rest = frame[:start] + b"null" + frame[stop:]
    many = len(frame)
    assert JSON.count(frame, many) >= values
    generally: Any = read_generally(frame, session)
    if generally is None:  # something else is wrong with it
        without: Any = read_generally(rest, session)
        assert without is None, frame
        return False
    argument = generally[2][index]
    assert jsontext.encode(argument) == bytes(text), frame
    assert repr(jsontext.decode(bytes(text))) == repr(argument), frame
    without = read_generally(rest, session)
    without[2][index] = argument
    assert repr(without[:3]) == repr(generally[:3]), frame
    return True


def split_whole(module: Any, text: bytes, room: int, step: int) -> list[Any] | None:
    """Return what all calls of ``split`` make of a text together; None: it is not known."""
    gathered: list[Any] = []
    at = 0
    while at >= 0:
        left = -1 if room < 0 else room - sum(len(values) or 1 for _, values in gathered)
        found = module.split(text, at, left, 100, step)
        if found is None:
            return None
        groups, at = found
        for name, values, size in groups:
            assert size == sum(len(key) + len(body) for key, body in values)
            if gathered and gathered[-1][0] == name and name not in ("session_diff", "model"):
                gathered[-1][1].extend(values)
            else:
                gathered.append((name, values))
    return gathered


def check_batch(module: Any, text: bytes, room: int, step: int) -> bool:
    """Return whether a batch is known; it is then cut into what the general way makes of it."""
    found = split_whole(module, text, room, step)
    assert found == split_whole(module, bytes(memoryview(text)), room, 10**9)
    if found is None:
        return False
    try:
        generally = checked(jsontext.decode(text), 0, room)
    except (RefusedError, TooManyError, ValueError) as exc:
        raise AssertionError(text) from exc
    assert found == generally, text
    return True


def check_together(module: Any, choose: random.Random) -> None:
    """Look for bytes that stand together, in two ways."""
    text = bytes(choose.choice(b"aab-- x") for _ in range(choose.randrange(60)))
    length = choose.randrange(1, 9)
    expected = b"x" * length in text.translate(CLASSES)
    assert module.stand_together(text, CLASSES, length) == expected, (text, length)


def run(argument_text: Any, batch_text: Any, seconds: float, seed: int) -> tuple[int, int]:
    """Compare for some time; return how many were compared, and how many of them were known."""
    choose = random.Random(seed)
    sessions = [Session(limits=Limits(depth=depth)) for depth in (3, 4, 64)]
    ends = time.monotonic() + seconds
    compared = known = 0
    while time.monotonic() < ends:
        for number in range(100):
            frame, index = call(choose)
            known += check_argument(argument_text, frame, index, sessions[min(number % 6, 2)])
            known += check_batch(batch_text, batch(choose), choose.choice([-1, 3]), choose.choice([1, 50]))
            check_together(batch_text, choose)
            compared += 2
    return compared, known


def _compiled(folder: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.so")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--modules", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    argument_text: Any
    batch_text: Any
    if options.modules is None:
        from rpcshare.rpc import argument_text
        from rpcshare.shares import batch_text
    else:
        argument_text, batch_text = (
            _compiled(options.modules, each) for each in ("argument_text", "batch_text")
        )
    print(f"seed {options.seed}", flush=True)
    compared, known = run(argument_text, batch_text, options.seconds, options.seed)
    print(f"{compared:,} compared, of which {known:,} are kept as text; no difference")


if __name__ == "__main__":
    main()
