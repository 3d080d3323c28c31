"""npm's client, our session in the middle, npm's server: every value passes through our session twice.

What comes of a call has to be what comes of it without us. tests/node/relay_client.mjs generates the calls.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from rpcshare.rpc import Connection, WebSocketTransport

NODE = Path(__file__).parent.parent / "node"

pytestmark = pytest.mark.node


@asynccontextmanager
async def relaying(upstream: str) -> AsyncIterator[str]:
    """Yield the URL of a relay: the main target of each session is that of a session with ``upstream``."""

    async def handle(websocket: ServerConnection) -> None:
        async with (
            connect(upstream, compression=None, proxy=None) as behind,
            Connection(WebSocketTransport(behind)) as further,
        ):
            main = further.remote_main
            await Connection(
                WebSocketTransport(websocket),
                main,
                on_send_error=lambda error: error,
                call_grace=0,
            ).run()

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("first", range(0, 240, 80))
async def test_a_call_through_a_relay_yields_what_it_yields_without(
    node: str, upstream: str, first: int
) -> None:
    async with relaying(upstream) as relay:
        process = await asyncio.create_subprocess_exec(
            node,
            "relay_client.mjs",
            upstream,
            relay,
            str(first),
            "80",
            cwd=NODE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
    found = json.loads(output)
    assert found["differences"] == []
    assert found["failed"] == []
    assert found["compared"] == 80
    assert found["live"] == 0
