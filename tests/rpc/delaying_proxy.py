"""A link with delay and bounded bandwidth between two sides of one process: a TCP proxy on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve

from rpcshare.rpc import Transport, WebSocketTransport


class DelayingProxy:
    """Forwards each connection to ``port``: at ``rate`` bytes a second, each ``delay`` seconds later."""

    def __init__(self, port: int, *, delay: float, rate: float) -> None:
        self._port = port
        self._delay = delay
        self._rate = rate
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection, both ways."""
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        free_at = loop.time()
        arrivals: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                at, data = await arrivals.get()
                if (left := at - loop.time()) > 0:
                    await asyncio.sleep(left)
                sink.write(data)
                if not data:
                    sink.close()
                    return
                await sink.drain()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(arrive())
            data = b"first"
            with contextlib.suppress(ConnectionError):
                while data:
                    data = await source.read(64 * 1024)
                    free_at = max(free_at, loop.time()) + len(data) / self._rate
                    arrivals.put_nowait((free_at + self._delay, data))

    async def close(self) -> None:
        """Cut the connections that are left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def slow_link(*, delay: float, rate: float) -> AsyncIterator[tuple[Transport, Transport]]:
    """Yield both ends of a WebSocket connection over such a link: the client's and the server's."""
    accepted: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def handle(websocket: ServerConnection) -> None:
        accepted.set_result(websocket)
        await websocket.wait_closed()

    def port_of(server: asyncio.Server | Server) -> int:
        return next(iter(server.sockets)).getsockname()[1]

    async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None, ping_interval=None) as server:
        proxy = DelayingProxy(port_of(server), delay=delay, rate=rate)
        listener = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{port_of(listener)}"
        async with connect(url, compression=None, max_size=None, ping_interval=None, proxy=None) as websocket:
            yield WebSocketTransport(websocket), WebSocketTransport(await accepted)
        listener.close()
        await proxy.close()
