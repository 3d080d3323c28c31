"""What is particular to WebSocket as a transport."""

import asyncio

import pytest
import websockets.asyncio.connection
from links import websocket_link
from transcript import Counter

from rpcshare.rpc import Connection, SessionClosedError, WebSocketTransport
from rpcshare.rpc.frames import close_reason
from support.waiting import eventually


def asyncio_socket(transport: WebSocketTransport) -> websockets.asyncio.connection.Connection:
    assert isinstance(transport._websocket, websockets.asyncio.connection.Connection)
    return transport._websocket


class TestLosingTheSocket:
    async def test_fails_calls_under_way_and_breaks_stubs(self) -> None:
        async with (
            websocket_link() as (near, far),
            Connection(far) as server,
            Connection(near, Counter()) as client,
        ):
            waiting = asyncio.ensure_future(client.remote_main.f())
            broken: list[Exception] = []
            server.remote_main.on_broken(broken.append)
            asyncio_socket(near).transport.abort()
            with pytest.raises(SessionClosedError, match="the connection was lost"):
                await waiting
            await eventually(lambda: bool(broken))


class TestFrames:
    async def test_are_text(self) -> None:
        async with websocket_link() as (near, far), Connection(near) as client:
            client.remote_main.f("é")
            await eventually(lambda: bool(asyncio_socket(far).recv_messages.frames))
            frame = await far._websocket.recv()
            assert frame == '["push",["pipeline",0,["f"],["é"]]]'

    @pytest.mark.parametrize("text", [False, True])
    async def test_may_be_of_either_kind_when_they_arrive(self, text: bool) -> None:
        async with websocket_link() as (near, far), Connection(far, Counter(4)):
            for message in (b'["push",["pipeline",0,["value"]]]', b'["pull",1]'):
                await near.send(message, text=text)
            assert await near.receive() == b'["resolve",1,4]'


class TestTheReasonInACloseFrame:
    @pytest.mark.parametrize(
        ("text", "sent"),
        [
            ("short", "short"),
            ("x" * 123, "x" * 123),
            ("x" * 124, "x" * 123),
            ("é" * 62, "é" * 61),
            ("x" + "😀" * 31, "x" + "😀" * 30),
            ("half \ud83d", "half ?"),
        ],
    )
    async def test_is_cut_to_what_has_room_between_two_characters(self, text: str, sent: str) -> None:
        assert close_reason(text) == sent
