"""A port that leads to the gateway, as in a sandbox."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["port_of"]


@asynccontextmanager
async def port_of(path: Path) -> AsyncIterator[int]:
    """A port of the loopback interface that leads to a Unix socket, as in a sandbox."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(path)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.closing(target), contextlib.suppress(OSError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
