"""Callers over RPC on WebSockets that ask for much, and read little or nothing of it."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack, suppress

from abuse.callers.rpc_values import PROBE, any_size, element, value, wide
from abuse.target import Target

__all__ = ["KINDS", "Socket"]

MB = 2**20


class Socket:
    """A WebSocket without a library, which would read what comes."""

    def __init__(self, target: Target, headers: dict[str, str], path: str = "/rpc") -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self._socket.settimeout(2.0)
        self._socket.connect(("127.0.0.1", target.port))
        lines = [f"GET {path} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {b64encode(bytes(16)).decode()}"]
        lines += [f"{name}: {content}" for name, content in headers.items()]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.head = self._socket.recv(4096)

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, message: bytes, *, announced: int = 0) -> bool:
        """Send a message, or the begin of a longer one; return whether it was taken."""
        length = max(len(message), announced)
        head = b"\x81" + (
            bytes((0x80 | length,))
            if length < 126
            else struct.pack("!BH", 0x80 | 126, length)
            if length < 65536
            else struct.pack("!BQ", 0x80 | 127, length)
        )
        try:
            self._socket.sendall(head + bytes(4) + message)
        except OSError:
            return False
        return True

    def read(self, size: int) -> int:
        """Read about so many bytes of what has come; return how many there were."""
        got = 0
        with suppress(OSError):
            while got < size and (part := self._socket.recv(min(65536, size - got))):
                got += len(part)
        return got


def message(*parts: object) -> bytes:
    return json.dumps(parts).encode()


def share_of(target: Target, rng: random.Random) -> str:
    """Make a share of some MB, and return its id."""
    share = target.create_share(f"ses_abuse_{rng.randrange(10**9)}x")
    for number in range(rng.choice((1, 4, 10))):
        if rng.random() < 0.5:
            texts: list[object] = [
                {
                    "type": "part",
                    "data": {"id": f"p{number}_{n}", "messageID": "m", "type": "text", "text": "x" * 1000},
                }
                for n in range(1000)
            ]
            target.sync(share, texts)
        else:
            target.sync(share, [{"type": "part", "data": {"id": f"p{number}", "x": [{}] * 40_000}}])
    return share["id"]


def unread(
    calls: Callable[[random.Random, str, int], list[bytes]],
) -> Callable[[Target, random.Random, float], None]:
    """Return the kind of caller that makes calls about a large share, and reads hardly anything."""

    def abuse(target: Target, rng: random.Random, seconds: float) -> None:
        share_id = share_of(target, rng)
        deadline = time.monotonic() + seconds
        with ExitStack() as stack:
            for _ in range(rng.choice((1, 3, 10))):
                one = stack.enter_context(Socket(target, target.admin))
                for number in range(1, 501):
                    if not all(map(one.send, calls(rng, share_id, number))):
                        break
            while time.monotonic() < deadline:
                time.sleep(0.2)

    return abuse


def get_share(_rng: random.Random, share_id: str, number: int) -> list[bytes]:
    return [message("push", ["pipeline", 0, ["getShare"], [share_id]]), message("pull", number)]


def watch(_rng: random.Random, share_id: str, number: int) -> list[bytes]:
    return [message("push", ["pipeline", 0, ["watch"], [share_id]]), message("pull", number)]


def subscribe(_rng: random.Random, share_id: str, number: int) -> list[bytes]:
    call = ["pipeline", 0, ["subscribe"], [share_id, ["export", -number]]]
    return [message("push", call), message("pull", number)]


def parts_of_share(_rng: random.Random, share_id: str, number: int) -> list[bytes]:
    path = ["pipeline", 1, ["parts"]] if number > 1 else ["pipeline", 0, ["getShare"], [share_id]]
    return [message("push", path), message("pull", number)]


def mixed(rng: random.Random, share_id: str, number: int) -> list[bytes]:
    return rng.choice((get_share, watch, subscribe, parts_of_share))(rng, share_id, number)


def half_messages(target: Target, rng: random.Random, seconds: float) -> None:
    """Begin long messages on many connections, and end none."""
    headers = {"Authorization": f"Bearer {target.view_token()}"}
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        for _ in range(rng.choice((40, 100))):
            if time.monotonic() > deadline:
                break
            one = stack.enter_context(Socket(target, headers))
            one.send(b'["push","' + b"x" * (30 * MB), announced=31 * MB)
        while time.monotonic() < deadline:
            time.sleep(0.2)


def many_sessions(target: Target, rng: random.Random, seconds: float) -> None:
    """Have many connections hold what one alone may hold."""
    headers = {"Authorization": f"Bearer {target.view_token()}"}
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        while time.monotonic() < deadline:
            with suppress(OSError):
                one = stack.enter_context(Socket(target, headers))
                one.send(b'["push",' + value(rng) + b"]")


def echoes(target: Target, rng: random.Random, seconds: float) -> None:
    """Have large values sent back, and read them slowly."""
    headers = {"Authorization": f"Bearer {target.view_token()}"}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), Socket(target, headers) as one:
            for number in range(1, 40):
                one.send(PROBE % value(rng))
                one.send(message("pull", number))
                one.read(rng.choice((0, 1000, MB)))


def expanding_bytes(target: Target, rng: random.Random, seconds: float) -> None:
    """Send bytes to a method that returns them as numbers."""
    headers = {"Authorization": f"Bearer {target.view_token()}"}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), Socket(target, headers) as one:
            data = b64encode(bytes(any_size(rng) // 2))
            for number in range(1, 20):
                one.send(
                    b'["push",["pipeline",0,["probeValue"],[{"when":["date",0],"bytes":["bytes","%b"]}]]]'
                    % data
                )
                one.send(message("pull", number))


def many_messages(target: Target, rng: random.Random, seconds: float) -> None:
    """Send a great many messages at once, of some work each."""
    headers = {"Authorization": f"Bearer {target.view_token()}"}
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        sockets = [stack.enter_context(Socket(target, headers)) for _ in range(rng.choice((1, 20)))]
        each = wide(rng, 20_000) if rng.random() < 0.5 else element(rng)
        number = 0
        while time.monotonic() < deadline:
            number += 1
            taken = [
                one.send(b'["push",' + each + b"]") and one.send(message("release", number, 1))
                for one in sockets
            ]
            if not any(taken):
                break


KINDS = {
    **{
        f"rpc-unread-{name}": unread(calls)
        for name, calls in {
            "getShare": get_share,
            "watch": watch,
            "subscribe": subscribe,
            "parts": parts_of_share,
            "mixed": mixed,
        }.items()
    },
    "rpc-half-messages": half_messages,
    "rpc-many-sessions": many_sessions,
    "rpc-many-messages": many_messages,
    "rpc-echoes": echoes,
    "rpc-expanding-bytes": expanding_bytes,
}
