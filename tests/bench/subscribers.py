"""Very many subscribers of one share, played by one process: python subscribers.py URL TOKEN SHARE COUNT.

Each has a WebSocket of its own and subscribes by RPC. They say only what they must, since it is the server
that is measured. Prints a line when all are there, and then, for each event, the seconds since the first
subscriber had it until the last one had, and when that was.
"""

import asyncio
import base64
import json
import os
import sys
import time
from functools import partial
from urllib.parse import urlsplit

AT_ONCE = 200
TEXT_FRAME = 0x81


def frame(message: object) -> bytes:
    """Return a message as a client's frame, masked with zeros (RFC 6455 section 5.3)."""
    body = json.dumps(message).encode()
    assert len(body) < 1 << 16
    length = (
        bytes([0x80 | len(body)]) if len(body) < 126 else bytes([0x80 | 126]) + len(body).to_bytes(2, "big")
    )
    return bytes([TEXT_FRAME]) + length + bytes(4) + body


class Subscriber(asyncio.Protocol):
    """A connection that subscribes, and tells of each event."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._received = b""
        self._events = 0
        self.is_subscribed = crowd.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._crowd.head)

    def data_received(self, data: bytes) -> None:
        crowd = self._crowd
        if not self.is_subscribed.done():
            self._received += data
            if b"\r\n\r\n" in self._received and not self._received.startswith(b"HTTP/1.1 101"):
                self.is_subscribed.set_exception(RuntimeError(self._received.decode(errors="replace")[:200]))
            elif b"\r\n\r\n" in self._received and crowd.subscribe:
                self._transport.write(crowd.subscribe)
                self._received = b"HTTP/1.1 101 "
            if b'"resolve",1' in self._received:
                self.is_subscribed.set_result(None)
            return
        # A small event comes in one piece; each is acknowledged, or the next would be merged with it.
        if b'"syncCount"' in data:
            self._events += 1
            self._transport.write(frame(["resolve", self._events, ["undefined"]]))
            crowd.heard()

    def connection_lost(self, _error: Exception | None) -> None:
        sys.exit("a subscriber has lost its connection")


def _same(each: Subscriber) -> Subscriber:
    return each


class Crowd:
    """All of them."""

    def __init__(self, url: str, token: str, share: str, count: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._address = urlsplit(url)
        key = base64.b64encode(os.urandom(16)).decode()
        self.head = (
            f"GET /rpc HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {token}\r\n\r\n"
        ).encode()
        call = ["push", ["pipeline", 0, ["subscribe"], [share, ["export", -1]]]]
        self.subscribe = frame(call) + frame(["pull", 1])
        self._count = count
        self._heard = 0
        self._began = 0.0

    def heard(self) -> None:
        now = time.time()
        if self._heard % self._count == 0:
            self._began = now
        self._heard += 1
        if self._heard % self._count == 0:
            print(json.dumps([now - self._began, now]), flush=True)

    async def gather(self) -> None:
        host, port = self._address.netloc.split(":")
        for start in range(0, self._count, AT_ONCE):
            subscribers = [Subscriber(self) for _ in range(min(AT_ONCE, self._count - start))]
            for each in subscribers:
                await self.loop.create_connection(partial(_same, each), host, int(port))
            await asyncio.gather(*(each.is_subscribed for each in subscribers))


async def main() -> None:
    url, token, share, count = sys.argv[1:]
    crowd = Crowd(url, token, share, int(count))
    await crowd.gather()
    print("all are there", flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main())
