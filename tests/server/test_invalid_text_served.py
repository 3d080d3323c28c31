"""Text that is not UTF-8, sent to the server as it is run, ends the connection with WebSocket's own code."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

import rpcshare
from support.running_server import RunningServer

INVALID = [
    pytest.param(b'["push","\xff"]', id="a byte that is none"),
    pytest.param(b'["push","\xed\xa0\x80"]', id="a surrogate"),
    pytest.param(b'["push",{"\xe2\x82":1}]', id="a name that is cut off"),
    pytest.param([b'["push","\xe2', b'\x28\xa1"]'], id="in two frames"),
]


@pytest.mark.parametrize("subprotocols", [None, ["rpcshare.json"], ["rpcshare.msgpack"]], ids=str)
@pytest.mark.parametrize("text", INVALID)
async def test_the_connection_is_closed_with_1007(
    server: RunningServer, text: bytes | list[bytes], subprotocols: list[Subprotocol] | None
) -> None:
    url = server.url.replace("http:", "ws:") + "/rpc"
    headers = {"Authorization": f"Bearer {server.token}"}
    async with (
        asyncio.timeout(30),
        connect(url, additional_headers=headers, subprotocols=subprotocols, proxy=None) as websocket,
    ):
        await websocket.send(text, text=True)
        await websocket.wait_closed()
        assert websocket.close_code == 1007


async def test_text_in_two_frames_that_splits_a_character_is_read(server: RunningServer) -> None:
    url = server.url.replace("http:", "ws:") + "/rpc"
    headers = {"Authorization": f"Bearer {server.token}"}
    async with (
        asyncio.timeout(30),
        connect(url, additional_headers=headers, proxy=None) as websocket,
    ):
        await websocket.send([b'["push","\xe2', b'\x82\xac"]'], text=True)
        await websocket.send('["pull",1]')
        assert await websocket.recv() == '["resolve",1,"€"]'


async def test_other_sessions_go_on(server: RunningServer) -> None:
    url = server.url.replace("http:", "ws:") + "/rpc"
    headers = {"Authorization": f"Bearer {server.token}"}
    async with asyncio.timeout(30), rpcshare.connect(server.url, token=server.token) as api:
        async with connect(url, additional_headers=headers, proxy=None) as websocket:
            await websocket.send(b"\xff", text=True)
            await websocket.wait_closed()
        assert (await api.whoami())["subject"]
