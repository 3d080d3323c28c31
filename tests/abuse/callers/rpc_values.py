"""Callers over RPC: values, references, maps and streams, in batches."""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import zstandard

from abuse.target import Target

__all__ = ["KINDS"]

# A line of a batch, or a message.
Lines = list[bytes]

PROBE = b'["push",["pipeline",0,["probeValue"],[{"when":["date",0],"bytes":["bytes",""],"nested":%b}]]]'
BODY = 60 * 2**20


def element(rng: random.Random) -> bytes:
    """Return a short expression that makes a large object."""
    return rng.choice(
        (
            b"{}",
            b"[[]]",
            b'{"a":1}',
            b"[[1]]",
            b'["date",1e300]',
            b'["date",0]',
            b'["undefined"]',
            b'["bigint","99"]',
            b'["url","a:b"]',
            b'["bytes",""]',
            b'["bytes","AA==","Int8Array"]',
            b'["headers",[]]',
            b'["error","E","m"]',
            b'["nan"]',
            b'["request","a:b",{}]',
            b'["response",null,{}]',
            b'"ab"',
            b"1234",
            b"1.5",
            b"1",
        )
    )


def wide(rng: random.Random, size: int) -> bytes:
    """Return an expression of about ``size`` bytes that stands for as many values as it can."""
    each = element(rng)
    return b"[[" + b",".join([each] * max(1, size // (len(each) + 1))) + b"]]"


def nested(rng: random.Random, size: int) -> bytes:
    """Return one in levels, each of which holds several of the next."""
    value = wide(rng, rng.choice((20, 200, 2000)))
    while len(value) * 2 < size:
        width = min(rng.choice((2, 10, 100)), max(2, size // len(value)))
        value = b"[[" + b",".join([value] * width) + b"]]"
    return value


def any_size(rng: random.Random) -> int:
    return rng.choice((10_000, 1_000_000, 8_000_000, 15_000_000))


def value(rng: random.Random) -> bytes:
    return rng.choice((wide, nested))(rng, any_size(rng))


def reading_paths(rng: random.Random) -> Lines:
    """Refer to one value by a property path, again and again."""
    lines = [b'["push",{"a":{"b":' + value(rng) + b"}}]"]
    path = rng.choice((b'["a"]', b'["a","b"]', b"[]"))
    lines += [b'["push",["pipeline",1,%b]]' % path] * rng.choice((5, 100, 5000))
    if rng.random() < 0.5:
        lines += [b'["pull",%d]' % number for number in range(2, len(lines) + 1)]
    return lines


def referring(rng: random.Random) -> Lines:
    """Refer to one value from within others, which then hold it, and so on."""
    lines = [b'["push",' + value(rng) + b"]"]
    for number in range(1, rng.choice((5, 40, 400))):
        width = rng.choice((1, 2, 50))
        inner = b",".join([b'["pipeline",%d]' % number] * width)
        lines.append(rng.choice((b'["push",[[%b]]]', PROBE.replace(b"%b", b"[[%b]]"))) % inner)
    lines += [b'["pull",%d]' % number for number in range(1, len(lines) + 1)]
    return lines


def mapping(rng: random.Random) -> Lines:
    """Map over a value, to what is much larger."""
    rows = rng.choice((100, 5000, 100_000))
    row = wide(rng, any_size(rng) // rows)
    lines = [b'["push",[[' + b",".join([row] * rows) + b"]]]"]
    body = rng.choice(
        (
            b'[["pipeline",0]]',
            b'[[["pipeline",0],["pipeline",0]]]',
            b'[["pipeline",0],{"a":["pipeline",1],"b":["pipeline",0]}]',
            b'[["remap",0,[],[],[["pipeline",0]]]]',
            b'[[[["pipeline",-1]]]]',
        )
    )
    captures = b'[["import",1]]' if b"-1" in body else b"[]"
    lines += [b'["push",["remap",1,[],%b,%b]]' % (captures, body)] * rng.choice((3, 60, 600))
    lines += [b'["pull",%d]' % number for number in range(2, len(lines) + 1)]
    return lines


def streaming(rng: random.Random) -> Lines:
    """Write to pipes that nobody reads, and to one that a call is given."""
    lines = [b'["pipe"]'] * rng.choice((1, 20, 2000))
    last = len(lines)
    chunk = value(rng)
    for _ in range(rng.choice((3, 50))):
        number = rng.randint(1, last)
        lines.append(b'["stream",["pipeline",%d,["write"],[%b]]]' % (number, chunk))
        if rng.random() < 0.2:
            lines.append(b'["push",["readable",%d]]' % rng.randint(1, last))
    return lines


def exporting(rng: random.Random) -> Lines:
    """Introduce as many stubs and promises as there is room for."""
    kind = rng.choice((b"export", b"promise"))
    count = rng.choice((1000, 100_000, 700_000))
    first = 1
    lines = []
    for _ in range(3):
        stubs = b",".join(b'["%b",%d]' % (kind, -number) for number in range(first, first + count))
        first += count
        lines.append(rng.choice((b'["push",[[%b]]]', PROBE)) % stubs)
    return lines


def pushing(rng: random.Random) -> Lines:
    """Push many small or middling values, and release none."""
    each = value(rng)[: rng.choice((100, 10_000))]
    count = min(60_000, BODY // (len(each) + 20))
    text = b'"' + b"x" * len(each) + b'"'
    return [b'["push",%b]' % text] * count


def calling(rng: random.Random) -> Lines:
    """Call what never returns, and what waits for it."""
    lines: Lines = []
    argument = value(rng)
    for number in range(rng.choice((100, 1000))):
        lines.append(b'["push",["pipeline",0,["probeCallback"],[["export",%d]]]]' % -(number + 1))
        lines.append(b'["push",["pipeline",%d,["a"],[%b]]]' % (2 * number + 1, argument[:1] and b"1"))
    lines.append(b'["push",["pipeline",1,["a"],[%b]]]' % argument)
    return lines


def post(target: Target, headers: dict[str, str], lines: Lines, seconds: float) -> None:
    """Post a batch, compressed, and read what answers it, for at most so many seconds: an answer has no end
    that a caller would see, if it asks for a large value thousands of times.
    """
    body, size = [], 0
    for line in lines:
        size += len(line) + 1
        if size > BODY:
            break
        body.append(line)
    packed = zstandard.ZstdCompressor(level=3).compress(b"\n".join(body))
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    try:
        connection.request("POST", "/rpc", packed, {**headers, "Content-Encoding": "zstd"})
        response = connection.getresponse()
        for _ in until(seconds):
            if not response.read1(2**20):
                break
    finally:
        connection.close()


def batches(make: Callable[[random.Random], Lines]) -> Callable[[Target, random.Random, float], None]:
    """Return the kind of caller that posts what ``make`` makes, as a mere reader."""

    def abuse(target: Target, rng: random.Random, seconds: float) -> None:
        headers = {"Authorization": f"Bearer {target.view_token()}"}
        for _ in until(seconds):
            with suppress(OSError, http.client.HTTPException):
                post(target, headers, make(rng), seconds)

    return abuse


def until(seconds: float) -> Iterator[int]:
    """Count for so many seconds."""
    deadline = time.monotonic() + seconds
    count = 0
    while time.monotonic() < deadline:
        yield count
        count += 1


KINDS = {
    f"rpc-batch-{make.__name__}": batches(make)
    for make in (reading_paths, referring, mapping, streaming, exporting, pushing, calling)
}
