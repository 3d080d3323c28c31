"""Many small frames over one WebSocket take neither memory nor time from others.

Sources: GHSA-96hv-2xvq-fx4p and pull request 2329 of ``ws`` (fragments of a byte and of none), pull request
21911 of curl (pings whose answers are not read).
"""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Sequence

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from rpcshare.rpc.transport import TransportClosedError
from rpcshare.server.http_protocol import HttpProtocol
from rpcshare.server.websocket_protocol import DIRECT, WebSocketProtocol

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


class Network(asyncio.Transport):
    """A client's end of a connection, which keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 2)})
        self.written: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._protocol: asyncio.BaseProtocol | None = None
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reads.clear()

    def resume_reading(self) -> None:
        self.reads.set()

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    abort = close


class Site:
    """An application that keeps the messages it gets, by ASGI's events or as the connection's receiver."""

    def __init__(self, *, is_direct: bool) -> None:
        self.messages: list[bytes | str] = []
        self.is_open = asyncio.Event()
        self.network = Network()
        self._is_direct = is_direct

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if self._is_direct:
            scope["extensions"][DIRECT].attach(self, text=False)
        self.is_open.set()
        while not self._is_direct and (message := await receive())["type"] == "websocket.receive":
            self.messages.append(message["text"])

    def frames_received(self, frames: Sequence[bytes | str]) -> None:
        self.messages += frames

    def holding(self, size: int) -> None: ...

    def writable(self) -> None: ...

    def transport_lost(self, error: TransportClosedError) -> None: ...

    @property
    def websocket(self) -> WebSocketProtocol:
        protocol = self.network.get_protocol()
        assert isinstance(protocol, WebSocketProtocol)
        return protocol

    async def send(self, data: bytes) -> None:
        """Have the server read ``data``, and give it the time to process all of it."""
        self.websocket.data_received(data)
        while not self.network.reads.is_set():
            await self.network.reads.wait()

    def answers(self) -> bytes:
        return b"".join(self.network.written)


@pytest.fixture(params=[True, False], ids=["RPC", "ASGI"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    site = Site(is_direct=request.param)
    config = uvicorn.Config(
        site.app, interface="asgi3", http=HttpProtocol, ws=WebSocketProtocol, log_config=None
    )
    config.load()
    state = ServerState()
    http = HttpProtocol(config=config, server_state=state, app_state={})
    site.network.set_protocol(http)
    http.connection_made(site.network)
    http.data_received(HANDSHAKE)
    await site.is_open.wait()
    site.network.written.clear()
    yield site
    site.websocket.connection_lost(None)
    await asyncio.gather(*state.tasks, return_exceptions=True)


PINGS = [b"%d" % number for number in range(5000)]


async def test_who_takes_nothing_gets_the_newest_answer_to_many_pings(site: Site) -> None:
    site.websocket.pause_writing()
    await site.send(b"".join(frame(Opcode.PING, data) for data in PINGS))
    assert len(site.answers()) < 1000
    site.websocket.resume_writing()
    newest = Frame(Opcode.PONG, PINGS[-1]).serialize(mask=False)
    assert site.answers().endswith(newest)


async def test_who_takes_all_gets_an_answer_to_each_ping(site: Site) -> None:
    await site.send(b"".join(frame(Opcode.PING, data) for data in PINGS))
    assert site.answers() == b"".join(Frame(Opcode.PONG, data).serialize(mask=False) for data in PINGS)


@pytest.mark.parametrize("size", [0, 1, 2])
async def test_a_message_in_many_fragments_takes_little_more_memory_than_its_bytes(
    site: Site, size: int
) -> None:
    count = 5_000
    fragments = frame(Opcode.CONT, b"xy"[:size], fin=False) * count
    await site.send(frame(Opcode.TEXT, b"begun ", fin=False))
    tracemalloc.start()
    try:
        for _ in range(2):
            await site.send(fragments)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * (2 * size * count) + 30_000
    await site.send(frame(Opcode.CONT, b" ended"))
    await asyncio.sleep(0)
    [message] = site.messages
    assert len(message) == len("begun  ended") + 2 * size * count


async def test_a_text_may_be_split_within_a_character(site: Site) -> None:
    text = "\N{GRINNING FACE}".encode()
    parts = [frame(Opcode.CONT, text[at : at + 1], fin=False) for at in range(4)]
    whole = [frame(Opcode.TEXT, b"", fin=False), *parts, frame(Opcode.CONT, b"")]
    await site.send(b"".join(whole))
    await asyncio.sleep(0)
    [message] = site.messages
    assert (message if isinstance(message, bytes) else message.encode()) == text


async def test_others_get_their_turn_while_many_frames_are_read(site: Site) -> None:
    fragments = frame(Opcode.CONT, b"x", fin=False) * 5000
    data = frame(Opcode.TEXT, b"", fin=False) + fragments + frame(Opcode.CONT, b"")
    site.websocket.data_received(data + frame(Opcode.TEXT, b"behind"))
    assert site.messages == []
    turns = 0
    while len(site.messages) < 2:
        turns += 1
        await asyncio.sleep(0)
    assert turns > 3
    text = [message if isinstance(message, str) else message.decode() for message in site.messages]
    assert text == ["x" * 5000, "behind"]


async def test_what_arrives_meanwhile_is_read_behind_it(site: Site) -> None:
    # A transport for TLS may still have some when it has been told to pause.
    last = frame(Opcode.TEXT, b"last")
    site.websocket.data_received(frame(Opcode.PING, b"") * 3000 + last[:3])
    await site.send(last[3:])
    await asyncio.sleep(0)
    assert site.messages in ([b"last"], ["last"])


async def test_a_close_behind_many_frames_is_answered(site: Site) -> None:
    await site.send(frame(Opcode.PING, b"") * 3000 + frame(Opcode.CLOSE, b"\x03\xe8"))
    assert site.answers().endswith(b"\x88\x02\x03\xe8")
