"""Peers of clients."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from websockets.asyncio.server import ServerConnection, serve

from rpcshare.rpc import Connection, RpcTarget, WebSocketTransport
from support.other_thread import in_other_thread


@contextmanager
def served(main: RpcTarget) -> Iterator[str]:
    """Serve ``main``; yield the URL."""

    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        async def handle(websocket: ServerConnection) -> None:
            await Connection(WebSocketTransport(websocket), main, call_grace=0).run()

        async with serve(handle, "127.0.0.1", 0, compression=None) as listener:
            yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"

    with in_other_thread(serving()) as url:
        yield url
