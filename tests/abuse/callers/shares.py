"""Callers of the HTTP API: bodies in every coding, diffs and parts that are many, readers that are slow."""

from __future__ import annotations

import gzip
import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import zstandard

from abuse.target import Target

__all__ = ["KINDS"]

MOST = 16 * 2**20  # bytes of a body that is taken
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor(level=3).compress,
    "gzip": lambda body: gzip.compress(body, 6),
    "identity": lambda body: body,
    "br": lambda body: body[:1000],
    "deflate": lambda body: body[:1000],
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
}


def body(rng: random.Random, size: int) -> bytes:
    """Return a body of about ``size`` bytes that decodes to many values, deep ones, or one that is long."""
    unit = rng.choice(
        (b"{}", b"0", b'""', b"[]", b"[[[[[]]]]]", b'{"a":{"a":{}}}', b'{"type":"part","data":{"id":"x"}}')
    )
    data = rng.choice(
        (
            lambda: b"[" + b",".join([unit] * (size // (len(unit) + 1))) + b"]",
            lambda: b"[" * (size // 2) + b"]" * (size // 2),
            lambda: b'"' + b"\\ud83d" * (size // 6) + b'"',
            lambda: b" " * size + b"[]",
            lambda: b"[" + b"9" * size + b"]",
        )
    )()
    return b'{"sessionID":"ses_abuse_bodies","secret":"no","password":"no","data":' + data + b"}"


def batch(rng: random.Random, room: int) -> bytes:
    """Return a sync with as many items as ``room`` bytes have, all of one kind."""
    kind = rng.choice(("part", "message", "diff", "diffs", "model", "same"))
    begun, numbers = rng.randrange(10**6), range(room // 48)
    if kind in ("part", "message"):
        items = b",".join(b'{"type":"%b","data":{"id":"%x"}}' % (kind.encode(), begun + n) for n in numbers)
    elif kind == "same":
        items = b",".join([b'{"type":"part","data":{"id":"x"}}'] * len(numbers))
    elif kind == "diff":
        diff = rng.choice((b"0", b'"' + b"x" * 10**6 + b'"', b'{"file":"f"}'))
        items = b'{"type":"session_diff","data":[' + b",".join([diff] * (room // (len(diff) + 1))) + b"]}"
    elif kind == "diffs":
        items = b'{"type":"session_diff","data":[' + b",".join(b"%d" % (begun + n) for n in numbers) + b"]}"
    else:
        items = b'{"type":"model","data":[' + b",".join(b'{"id":"%x"}' % (begun + n) for n in numbers) + b"]}"
    return b'{"data":[' + items + b"]}"


def ask(target: Target, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> None:
    """Make a request, and take the answer and let it go."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    with suppress(OSError, http.client.HTTPException):
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        while response.read(2**20):
            pass
    connection.close()


def until(seconds: float) -> Iterator[None]:
    """Go on for so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield


def together(callers: list[Callable[[], None]]) -> None:
    """Run all at once, to their ends."""
    threads = [threading.Thread(target=caller) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def bodies(target: Target, rng: random.Random, seconds: float) -> None:
    """Send bodies in every coding to every route that takes one, without a right to any."""
    share = target.create_share("ses_abuse_target")
    base = f"/api/share/{share['id']}"
    routes = [
        ("POST", "/api/share"),
        ("POST", f"{base}/sync"),
        ("POST", "/api/share/nowhere0/sync"),
        ("PATCH", base),
        ("DELETE", base),
        ("POST", f"{base}/view-token"),
        ("POST", f"{base}/unlock"),
        ("POST", "/rpc"),
    ]

    def send(own: random.Random) -> None:
        for _ in until(seconds):
            method, path = own.choice(routes)
            coding = own.choice(list(CODINGS))
            content = CODINGS[coding](body(own, own.choice((1000, MOST - 1000, 2 * MOST))))
            ask(target, method, path, content, {"Content-Encoding": coding})

    seeds = [random.Random(rng.random()) for _ in range(4)]
    together([lambda own=own: send(own) for own in seeds])  # type: ignore[misc]  # bound as they are


def many_items(target: Target, rng: random.Random, seconds: float) -> None:
    """Fill shares with as many items as they take, and read them in every form."""
    shares = []
    for number, _ in enumerate(until(seconds)):
        if number % 3 == 0:
            shares.append(target.create_share(f"ses_abuse_items_{number:08}"))
        share = shares[-1]
        coding = rng.choice(("zstd", "gzip"))
        content = CODINGS[coding](batch(rng, rng.choice((10**5, MOST - 1000))))
        headers = {**target.admin, "Content-Encoding": coding}
        ask(target, "POST", f"/api/share/{share['id']}/sync", content, headers)
        form = rng.choice(("/api/share/{}", "/api/share/{}/data", "/share/{}", "/share/{}?view=changes"))
        ask(
            target,
            "GET",
            form.format(share["id"]),
            None,
            {"Accept-Encoding": rng.choice(("gzip", "zstd", ""))},
        )
    for share in shares:
        ask(target, "DELETE", f"/api/share/{share['id']}", None, target.admin)


def slow_readers(target: Target, rng: random.Random, seconds: float) -> None:
    """Read a large share as slowly as can be, in every way and state, while it is written over and over."""
    share = target.create_share("ses_abuse_readers")

    def write(size: int) -> None:
        texts = [{"id": f"p{number}", "text": rng.randbytes(size).hex()} for number in range(2000)]
        target.sync(share, [{"type": "part", "data": text} for text in texts])

    write(2000)
    ways = (
        ("/ws/{}", UPGRADE),
        ("/ws/{}?fromSyncCount=1", UPGRADE),
        ("/api/share/{}/events", ""),
        ("/api/share/{}/events?fromSyncCount=1", ""),
        ("/api/share/{}", "Accept-Encoding: gzip\r\n"),
        ("/api/share/{}/data", "Accept-Encoding: zstd\r\n"),
        ("/api/share/{}/data", ""),
        ("/share/{}/live?after=0", ""),
    )
    with ExitStack() as stack:
        readers: list[socket.socket] = []
        for _ in until(seconds):
            for _ in range(10 if len(readers) < 150 else 0):
                path, headers = rng.choice(ways)
                reader = stack.enter_context(socket.socket())
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.connect(("127.0.0.1", target.port))
                place = f"{path.format(share['id'])} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}"
                head = f"GET {place}\r\n{headers}\r\n"
                reader.sendall(head.encode())
                reader.setblocking(False)
                readers.append(reader)
            write(rng.choice((10, 200)))
            for reader in rng.sample(readers, len(readers) // 2):
                with suppress(OSError):
                    reader.recv(rng.choice((1, 1000, 100_000)))
    ask(target, "DELETE", f"/api/share/{share['id']}", None, target.admin)


KINDS = {"http-bodies": bodies, "http-many-items": many_items, "http-slow-readers": slow_readers}
