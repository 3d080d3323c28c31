"""A TCP proxy in front of a server, whose connections the test cuts, stalls and refuses."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import anyio.to_thread

from support.other_thread import in_other_thread


class TcpProxy:
    """Forwards bytes both ways, unless told otherwise.

    Attributes:
        url: where it listens.
        refuses: whether new connections are closed at once.
        swallows_requests: whether what clients send gets lost on the way.
        swallows_answers: whether what the server sends does.
        longest_talk: how many bytes a client may send before its connection is cut; None for any number.
        accepted: how many connections have been forwarded.
    """

    def __init__(self, upstream_url: str) -> None:
        upstream = urlsplit(upstream_url)
        self._upstream = (upstream.hostname, upstream.port)
        self.url = ""
        self.refuses = False
        self.swallows_requests = False
        self.swallows_answers = False
        self.longest_talk: int | None = None
        self.accepted = 0
        self._links: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop

    @asynccontextmanager
    async def run(self) -> AsyncIterator["TcpProxy"]:
        """Forward while the block lasts."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            await self._cut()

    def stall(self) -> None:
        """Let everything get lost, with no end of any connection."""
        self.swallows_requests = self.swallows_answers = True

    def heal(self) -> None:
        """Forward everything from here on."""
        self.refuses = self.swallows_requests = self.swallows_answers = False

    async def cut(self) -> None:
        """End every connection that there is, without a word of WebSocket."""
        cutting = asyncio.run_coroutine_threadsafe(self._cut(), self._loop)
        await anyio.to_thread.run_sync(cutting.result)

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            await self._link(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # of a callback of asyncio's server, which would report it
        finally:
            self._links.discard(task)
            writer.transport.abort()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        pumps = (
            asyncio.create_task(self._pump(reader, upstream_writer, "swallows_requests")),
            asyncio.create_task(self._pump(upstream_reader, writer, "swallows_answers")),
        )
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            upstream_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, switch: str) -> None:
        talk = 0
        while data := await reader.read(65536):
            talk += len(data)
            if switch == "swallows_requests" and self.longest_talk is not None and talk > self.longest_talk:
                return
            if not getattr(self, switch):
                writer.write(data)
                await writer.drain()


@contextmanager
def proxied(upstream_url: str) -> Iterator[TcpProxy]:
    """Have a proxy in front of a server while the block lasts."""
    with in_other_thread(TcpProxy(upstream_url).run()) as proxy:
        yield proxy
