"""A capability-RPC server of your own. It hands out objects, which stay here and are called from there.

    python examples/counter_server.py 8123

From Python, in one round trip:

    async with rpcshare.connect("ws://127.0.0.1:8123") as api:
        print(await api.makeCounter(40).increment(2))

From JavaScript, with capnweb from npm:

    const api = newWebSocketRpcSession("ws://127.0.0.1:8123");
    console.log(await api.makeCounter(40).increment(2));
"""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve

from rpcshare.rpc import Connection, RpcTarget, WebSocketTransport, rpc_method


class Counter(RpcTarget):
    """Lives on the server as long as a client refers to it."""

    def __init__(self, value: int) -> None:
        self.value = value

    @rpc_method("increment(by?)")
    def increment(self, by: int = 1) -> int:
        """Count, and return how far that is."""
        self.value += by
        return self.value


class Main(RpcTarget):
    """What a client finds on connecting."""

    @rpc_method("makeCounter(start?)")
    def make_counter(self, start: int = 0) -> Counter:
        """Return a new counter, by reference."""
        return Counter(start)


async def session(websocket: ServerConnection) -> None:
    await Connection(WebSocketTransport(websocket), Main()).run()


async def main(port: int) -> None:
    async with serve(session, "127.0.0.1", port) as server:
        print("listening on port", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
