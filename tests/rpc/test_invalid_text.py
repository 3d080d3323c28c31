"""Messages of text that is not UTF-8: WebSocket's own close code says so (RFC 6455, section 8.1)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

import rpcshare
from rpcshare.rpc import JSON, Codec, Connection, WebSocketTransport
from rpcshare.rpc.messagepack import MESSAGEPACK

INVALID = [
    pytest.param(b'["push","\xff"]', id="a byte that is none"),
    pytest.param(b'["push","\xed\xa0\x80"]', id="a surrogate"),
    pytest.param(b'["push","\xc0\xaf"]', id="longer than need be"),
    pytest.param(b'["push",{"\xe2\x82":1}]', id="a name that is cut off"),
    pytest.param(b"\xfe\xff\x00[", id="UTF-16"),
]


@asynccontextmanager
async def serving(codec: Codec) -> AsyncIterator[str]:
    """Yield the URL of a server of sessions in ``codec``."""

    async def handle(websocket: ServerConnection) -> None:
        await Connection(WebSocketTransport(websocket), codec=codec).run()

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("text", INVALID)
async def test_a_session_in_json_ends_with_1007(text: bytes) -> None:
    async with asyncio.timeout(20), serving(JSON) as url, connect(url, proxy=None) as websocket:
        await websocket.send(text, text=True)
        assert str(await websocket.recv()).startswith('["abort",')
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1007


@pytest.mark.parametrize("subprotocol", ["rpcshare.json", "rpcshare.msgpack"])
@pytest.mark.parametrize("text", INVALID)
async def test_a_client_ends_its_session_with_1007(text: bytes, subprotocol: str) -> None:
    closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def handle(websocket: ServerConnection) -> None:
        await websocket.send(text, text=True)
        await websocket.wait_closed()
        closed.set_result(websocket.close_code)

    def select(_connection: ServerConnection, _names: Sequence[Subprotocol]) -> Subprotocol:
        return Subprotocol(subprotocol)

    async with (
        asyncio.timeout(20),
        serve(handle, "127.0.0.1", 0, select_subprotocol=select, compression=None) as server,
    ):
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/rpc"
        async with rpcshare.connect(url):
            assert await closed == 1007


async def test_text_that_is_utf_8_and_no_message_still_ends_with_an_abort() -> None:
    async with asyncio.timeout(20), serving(JSON) as url, connect(url, proxy=None) as websocket:
        await websocket.send('["push","ü"')
        assert str(await websocket.recv()).startswith('["abort",')


@pytest.mark.parametrize(("frame", "code"), [(b"\xff", 1007), (b"[]", 3000)])
async def test_a_session_in_messagepack_tells_invalid_text_from_text(frame: bytes, code: int) -> None:
    text = str(frame, "utf-8", "surrogateescape")  # as transports hand it over
    with pytest.raises(rpcshare.rpc.errors.ProtocolError) as caught:
        MESSAGEPACK.decode(text)
    assert caught.value.close_code == code
