"""The connection to the server under test: messages as they are, without a session on this side."""

from __future__ import annotations

import base64
import contextlib
import urllib.error
import urllib.request
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

import anyio.to_thread
import msgpack
import msgspec
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from rpcshare import jsontext
from rpcshare.rpc.event_loop import is_trio

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.trio.client import ClientConnection as TrioConnection

__all__ = ["Ended", "Peer", "Unreadable", "open_peer"]

# What makes an entry of the tables: the number that such a message gets is how many there were before.
NUMBERED = ("push", "stream", "pipe")

BINARY = (Subprotocol("rpcshare.msgpack"),)

# Half of a surrogate pair, which JSON escapes, is three bytes of a string in MessagePack.
HALF_PAIRS = "surrogatepass"


class Ended(msgspec.Struct, frozen=True):
    """Takes the place of a message: there will be none."""

    how: str


class Unreadable(msgspec.Struct, frozen=True):
    """Takes the place of a message: something came that is none."""

    how: str


class Peer(Protocol):
    """The server under test, in one session."""

    async def send(self, message: list[object]) -> None:
        """Send a message."""
        ...

    async def send_text(self, text: str) -> None:
        """Send a text in the place of a message."""
        ...

    async def receive(self) -> object:
        """Return the next message, or what is in its place."""
        ...

    async def ask(self) -> object:
        """Make the peer say something, after all that it has to say now; return what that must be."""
        ...


@contextlib.asynccontextmanager
async def open_peer(url: str, *, messagepack: bool = False) -> AsyncIterator[Peer]:
    """Begin a session with the server at ``url``, and end it with the block.

    Raises:
        OSError: there is no such server, or it refuses.
    """
    if url.startswith(("http:", "https:")):
        yield _Batch(url)
        return
    if is_trio():
        from websockets.trio.client import connect  # noqa: PLC0415 -- trio need not be installed
    else:
        from websockets.asyncio.client import connect  # type: ignore[assignment]  # noqa: PLC0415 -- as the other
    async with contextlib.AsyncExitStack() as stack:
        try:
            # What is compressed or not is no business of the protocol. There is no proxy to a test.
            connecting = connect(url, subprotocols=BINARY if messagepack else None, max_size=None, proxy=None)
            websocket = await stack.enter_async_context(connecting)
        except WebSocketException as exc:
            raise ConnectionError(f"{url}: {exc}") from exc
        if messagepack and websocket.subprotocol is None:
            raise ConnectionError(f"{url}: the server does not speak {BINARY[0]}")
        yield _BinarySession(websocket) if messagepack else _Session(websocket)


class _Session:
    """A session over WebSocket, in JSON."""

    def __init__(self, websocket: ClientConnection | TrioConnection) -> None:
        self._websocket = websocket
        self._numbered = 0

    async def send(self, message: list[object]) -> None:
        """Send a message."""
        self._count(message)
        await self._send(message)

    def _count(self, message: object) -> None:
        if isinstance(message, list) and message and message[0] in NUMBERED:
            self._numbered += 1

    async def _send(self, message: list[object]) -> None:
        await self._send_frame(jsontext.encode(message).decode())

    async def send_text(self, text: str) -> None:
        """Send a text in the place of a message."""
        with contextlib.suppress(jsontext.JSONDecodeError):  # so that it makes no entry
            self._count(jsontext.decode(text))
        await self._send_frame(text)

    async def _send_frame(self, frame: str | bytes) -> None:
        with contextlib.suppress(ConnectionClosed):  # which is learnt by who reads
            await self._websocket.send(frame)

    async def receive(self) -> object:
        """Return the next message, or how the session has ended."""
        try:
            frame = await self._websocket.recv()
        except ConnectionClosed as exc:
            return Ended(f"the connection is closed: {exc}")
        return self._decode(frame)

    def _decode(self, frame: str | bytes) -> object:
        return _decoded(frame)

    async def ask(self) -> object:
        """Make one more call; return its answer."""
        await self.send(["push", ["pipeline", 0, ["returnNumber"], [self._numbered + 1]]])
        await self.send(["pull", self._numbered])
        return ["resolve", self._numbered, self._numbered]


class _BinarySession(_Session):
    """A session over WebSocket, in MessagePack: bytes are as they are, and everything else as in JSON."""

    async def _send(self, message: list[object]) -> None:
        await self._send_frame(msgpack.packb(_with_raw_bytes(message), unicode_errors=HALF_PAIRS))

    def _decode(self, frame: str | bytes) -> object:
        if isinstance(frame, str):
            return Unreadable("a message in text")
        try:
            return _with_base64(msgpack.unpackb(frame, unicode_errors=HALF_PAIRS))
        except (ValueError, msgpack.UnpackException) as exc:
            return Unreadable(f"a message that is not MessagePack: {exc}")


def _decoded(text: str | bytes) -> object:
    try:
        return jsontext.decode(text)
    except jsontext.JSONDecodeError as exc:
        return Unreadable(f"a message that is not JSON: {exc}")


def _with_raw_bytes(expression: object) -> object:
    if isinstance(expression, dict):
        return {name: _with_raw_bytes(item) for name, item in expression.items()}
    if not isinstance(expression, list):
        return expression
    if expression[:1] == ["bytes"] and len(expression) in (2, 3) and isinstance(expression[1], str):
        data = base64.b64decode(expression[1] + "=" * (-len(expression[1]) % 4))
        return ["bytes", data, *expression[2:]]
    return [_with_raw_bytes(item) for item in expression]


def _with_base64(expression: object) -> object:
    if isinstance(expression, dict):
        return {name: _with_base64(item) for name, item in expression.items()}
    if isinstance(expression, bytes):
        return base64.b64encode(expression).decode().rstrip("=")
    return [_with_base64(item) for item in expression] if isinstance(expression, list) else expression


class _Batch:
    """A session in one HTTP request, which is sent when the first answer is asked for."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lines: list[str] = []
        self._answers: deque[str] | None = None

    async def send(self, message: list[object]) -> None:
        """Add a message to the batch."""
        self._lines.append(jsontext.encode(message).decode())

    async def send_text(self, text: str) -> None:
        """Add a line to the batch."""
        self._lines.append(text)

    async def receive(self) -> object:
        """Return the next message of the answer."""
        if self._answers is None:
            self._answers = deque(filter(None, (await anyio.to_thread.run_sync(self._post)).split("\n")))
        return _decoded(self._answers.popleft()) if self._answers else Ended("the answer ends")

    async def ask(self) -> object:
        """There is nothing to ask: the answer must end."""
        return Ended("the answer ends")

    def _post(self) -> str:
        body = "\n".join(self._lines).encode()
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 -- it is http
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                answer: bytes = response.read()
        except urllib.error.HTTPError as exc:
            with exc:
                raise ConnectionError(f"{self._url}: the server answers {exc.code}") from None
        return answer.decode()
