"""The shorter way to read and write messages, held against the general one.

``python -m tests.fuzz.short_messages [--module FILE] [--seconds N] [--seed N]`` does so at random. ``FILE``
is the module in C compiled in another way, as ``make sanitize`` does.
"""

import argparse
import importlib.util
import json
import random
import time
from pathlib import Path
from typing import Any

from rpcshare.rpc.codec import JSON
from rpcshare.rpc.decoding import Decoder
from rpcshare.rpc.errors import EncodeError, ProtocolError
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.memory_budget import UNLIMITED, count_values
from rpcshare.rpc.session import Session

DEPTHS = (1, 2, 3, 64)


def read_generally(frame: bytes, session: Session) -> object:
    """Return what the general code makes of a message; None if it is wrong."""
    try:
        message: Any = JSON.decode(frame)
        if message[0] != "push":
            return message
        _, target, path, arguments = message[1]
        payload = Decoder(session, session, session).arguments(arguments, 0)
    except (ProtocolError, ValueError, LookupError, TypeError):
        return None
    return target, tuple(path), payload.value, payload.values


def write_generally(export_id: int, value: object, session: Session) -> object:
    """Return the frame of a result and how many values it has; None if it cannot be sent."""
    encoder = session.encoder()
    try:
        expression = encoder.encode(value)
    except EncodeError:
        return None
    return JSON.encode(["resolve", export_id, expression]), encoder.values


def sessions() -> list[Session]:
    """Return a session for each of several depths to which values may be nested."""
    return [Session(limits=Limits(depth=depth)) for depth in DEPTHS]


def check_reading(module: Any, frame: bytes, session: Session) -> bool:
    """Return whether the shorter way knows ``frame``; what it reads is what the general way reads."""
    read = module.read(frame, session.max_depth)
    if read is None:
        return False
    # Types matter, the order of members and the sign of zero, which repr() tells apart and == does not.
    assert repr(read) == repr(read_generally(frame, session)), frame
    return True


def check_writing(module: Any, value: object, session: Session) -> bool:
    """Return whether the shorter way knows ``value``; what it writes is what the general way writes."""
    counted = module.count(value)
    assert counted in (-1, count_values(value, UNLIMITED)[0]), value
    written = module.write(7, value, session.max_depth)
    if written is None:
        return False
    assert written == write_generally(7, value, session), value
    return True


STRINGS = [
    "",
    "a",
    "text",
    "é",
    "\N{GRINNING FACE}",
    '"',
    "\\",
    "\n",
    "\x00",
    "\x1f",
    "\x7f",
    "\ud800",
    "x" * 300,
]
NUMBERS = [0, 1, -1, 2**53 - 1, 2**53, -(2**53), 2**63, 10**30, 0.5, -0.0, 1e300, 1e16, 1.5e-7]
ODD = [
    "-0",
    "00",
    "01",
    "1.",
    ".5",
    "1e",
    "1e5",
    "-",
    "1E+2",
    "0.0",
    "1e999",
    "9007199254740992",
    "NaN",
    "tru",
    "null",
]


def plain(choose: random.Random, depth: int = 0) -> object:
    """Return a value of JSON."""
    kind = choose.randrange(7 if depth < 5 else 4)
    if kind < 2:
        return choose.choice(STRINGS)
    if kind == 2:
        return choose.choice(NUMBERS)
    if kind == 3:
        return choose.choice([None, True, False])
    items = [plain(choose, depth + 1) for _ in range(choose.randrange(5))]
    return items if kind == 4 else {choose.choice(STRINGS): item for item in items}


def expression(choose: random.Random, depth: int = 0) -> object:
    """Return an expression of the wire, most of which are well formed."""
    kind = choose.randrange(10 if depth < 5 else 5)
    if kind < 5:
        return choose.choice([*STRINGS, *NUMBERS, None, True, False])
    if kind == 5:
        return ["date", choose.choice([*NUMBERS, choose.randrange(-(10**14), 3 * 10**14), None])]
    if kind == 6:
        length = choose.randrange(9)
        return [
            "bytes",
            "".join(choose.choice("AQgwzZ09+/=é"[: choose.choice([10, 12])]) for _ in range(length)),
        ]
    if kind == 7:
        return choose.choice([["undefined"], ["bigint", "1"], ["nan"], [], ["date"], ["bytes"], [[]], [1]])
    items = [expression(choose, depth + 1) for _ in range(choose.randrange(5))]
    return [items] if kind == 8 else {choose.choice(STRINGS): item for item in items}


def frame(choose: random.Random) -> bytes:
    """Return a frame, half of which are malformed in one place or more."""
    kind = choose.randrange(9)
    message: object
    if kind == 0:
        message = ["pull", choose.choice(NUMBERS)]
    elif kind == 1:
        message = ["release", choose.choice(NUMBERS), choose.choice(NUMBERS)]
    elif kind == 2:
        yielded = choose.choice([["undefined"], ["undefined", 1], [], "undefined", ["bigint", "1"], None])
        message = ["resolve", choose.choice(NUMBERS), yielded]
    else:
        path = [choose.choice(STRINGS) for _ in range(choose.randrange(4))]
        arguments = [expression(choose) for _ in range(choose.randrange(4))]
        message = ["push", ["pipeline", choose.choice([0, 1, -1, 2**60]), path, arguments]]
    ascii_only = choose.random() < 0.3
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=ascii_only)
    made = text.encode("utf-8", "surrogatepass")
    if choose.random() < 0.5:
        return made
    for _ in range(choose.randrange(1, 4)):
        at = choose.randrange(len(made) + 1)
        cut = choose.randrange(4)
        put = choose.choice(
            [
                b"",
                b"",
                b'"',
                b"\\",
                b"[",
                b"]",
                b"{",
                b"}",
                b",",
                b":",
                b" ",
                b"\x00",
                b"\xff",
                b"\xc3",
                b"\\u0041",
            ]
            + [odd.encode() for odd in ODD]
        )
        made = made[:at] + put + made[at + cut :]
    return made


def run(module: Any, seconds: float, seed: int) -> tuple[int, int]:
    """Compare for some time; return how many were compared, and how many of them were known."""
    choose = random.Random(seed)
    of_depths = sessions()
    ends = time.monotonic() + seconds
    compared = known = 0
    while time.monotonic() < ends:
        for number in range(100):
            session = of_depths[-1 if number % 4 else number // 4 % len(of_depths)]
            known += check_reading(module, frame(choose), session)
            known += check_writing(module, plain(choose), session)
            compared += 2
    return compared, known


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--module", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    module: Any
    if options.module is None:
        from rpcshare.rpc import short_messages as module
    else:
        spec = importlib.util.spec_from_file_location("short_messages", options.module)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    print(f"seed {options.seed}", flush=True)
    compared, known = run(module, options.seconds, options.seed)
    print(f"{compared:,} compared, of which {known:,} are read or written in the shorter way; no difference")


if __name__ == "__main__":
    main()
