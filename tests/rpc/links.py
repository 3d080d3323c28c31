"""Connections between two sides of one process, over each kind of transport."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from rpcshare.rpc import Transport, TransportClosedError, WebSocketTransport, memory_pair


@asynccontextmanager
async def memory_link() -> AsyncIterator[tuple[Transport, Transport]]:
    yield memory_pair()


@asynccontextmanager
async def websocket_link() -> AsyncIterator[tuple[WebSocketTransport, WebSocketTransport]]:
    """Yield both ends of a WebSocket connection over loopback: the client's and the server's."""
    accepted: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def handle(websocket: ServerConnection) -> None:
        accepted.set_result(websocket)
        await websocket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"ws://127.0.0.1:{port}"
        async with connect(url, compression=None, max_size=None, proxy=None) as websocket:
            yield WebSocketTransport(websocket), WebSocketTransport(await accepted)


class SlowTransport:
    """Receives what the test has put in, and sends nothing before the test opens the gate."""

    def __init__(self, *frames: bytes) -> None:
        self.arriving = deque(frames)
        self.sent: list[bytes] = []
        self.gate = asyncio.Event()
        self.closed: tuple[int, str] | None = None
        self._lost = asyncio.Event()

    async def receive(self) -> bytes | str:
        if not self.arriving:
            await self._lost.wait()
            raise TransportClosedError("the test is over")
        await asyncio.sleep(0)
        return self.arriving.popleft()

    async def send(self, frame: bytes, *, text: bool) -> None:
        await self.gate.wait()
        self.sent.append(frame)

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def lose(self) -> None:
        self._lost.set()
