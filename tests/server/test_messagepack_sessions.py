"""Which subprotocol a handshake selects, and what then travels."""

import base64
from collections.abc import Sequence
from typing import Any

import msgpack
import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

import rpcshare
from rpcshare.rpc import JSON, Codec, Connection, Date, RpcError, RpcTarget, WebSocketTransport, rpc_method
from rpcshare.rpc.messagepack import MESSAGEPACK
from support.narrowing import not_none
from support.running_server import RunningServer

WHOAMI = [["push", ["pipeline", 0, ["whoami"], []]], ["pull", 1]]
ADMIN = ["resolve", 1, {"subject": "admin", "scopes": [["admin"]]}]


def dial(server: RunningServer, *subprotocols: str) -> ClientConnection:
    return connect(
        server.url.replace("http", "ws") + "/rpc",
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        additional_headers={"Authorization": f"Bearer {server.token}"},
        proxy=None,
    )


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (["rpcshare.msgpack"], "rpcshare.msgpack"),
        (["rpcshare.msgpack", "rpcshare.json"], "rpcshare.msgpack"),
        (["rpcshare.json", "rpcshare.msgpack"], "rpcshare.msgpack"),
        (["rpcshare.json", "another"], "rpcshare.json"),
        (["another", "rpcshare.msgpack"], "rpcshare.msgpack"),
        (["another"], None),
        ([], None),
    ],
)
def test_messagepack_is_selected_if_it_is_offered_and_else_what_is_known(
    server: RunningServer, offered: list[str], selected: str | None
) -> None:
    with dial(server, *offered) as socket:
        assert socket.subprotocol == selected


def test_a_browser_may_offer_its_token_beside_it(server: RunningServer) -> None:
    token = base64.urlsafe_b64encode(server.token.encode()).decode().rstrip("=")
    url = server.url.replace("http", "ws") + "/rpc"
    offered = [Subprotocol("rpcshare.msgpack"), Subprotocol(f"bearer.{token}")]
    with connect(url, subprotocols=offered, proxy=None) as socket:
        assert socket.subprotocol == "rpcshare.msgpack"


def test_messages_are_in_binary_frames_both_ways(server: RunningServer) -> None:
    with dial(server, "rpcshare.msgpack") as socket:
        for message in WHOAMI:
            socket.send(msgpack.packb(message))
        answer = socket.recv()
        assert isinstance(answer, bytes)
        assert msgpack.unpackb(answer) == ADMIN


def test_a_text_frame_in_such_a_session_ends_it(server: RunningServer) -> None:
    with dial(server, "rpcshare.msgpack") as socket:
        socket.send('["push",1]')
        reason = "a message in MessagePack comes in a binary frame"
        assert msgpack.unpackb(socket.recv()) == ["abort", ["error", "Error", reason]]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
        received = not_none(closed.value.rcvd)
        assert (received.code, received.reason) == (3000, reason)


@pytest.mark.parametrize("offered", [["rpcshare.json"], []])
def test_a_binary_frame_in_a_session_in_json_is_read_as_its_text(
    server: RunningServer, offered: list[str]
) -> None:
    with dial(server, *offered) as socket:
        socket.send(b'["push",["pipeline",0,["whoami"],[]]]')
        socket.send(b'["pull",1]')
        assert isinstance(socket.recv(), str)


def test_messagepack_in_a_session_in_json_ends_it(server: RunningServer) -> None:
    with dial(server, "rpcshare.json") as socket:
        socket.send(msgpack.packb(["push", 1]))
        assert "a message of text is not UTF-8" in str(socket.recv())


class TestThePythonClient:
    @pytest.mark.parametrize(
        ("selected", "codec"), [("rpcshare.msgpack", MESSAGEPACK), ("rpcshare.json", JSON), (None, JSON)]
    )
    async def test_offers_it_after_json_and_speaks_what_the_server_selects(
        self, selected: str | None, codec: Codec
    ) -> None:
        offered: list[str] = []

        def select(_connection: ServerConnection, names: Sequence[Subprotocol]) -> Subprotocol | None:
            offered.extend(names)
            return None if selected is None else Subprotocol(selected)

        async def handle(websocket: ServerConnection) -> None:
            async with Connection(WebSocketTransport(websocket), Square(), codec=codec):
                await websocket.wait_closed()

        async with serve(handle, "127.0.0.1", 0, select_subprotocol=select, compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            async with rpcshare.connect(f"ws://127.0.0.1:{port}/rpc") as api:
                assert await api.square(4) == 16
        assert offered == ["rpcshare.json", "rpcshare.msgpack"]

    async def test_passes_values_by_it(self, server: RunningServer) -> None:
        value = {"when": Date(5), "bytes": b"\x00\xff", "nested": [[{"": None}]]}
        async with rpcshare.connect(server.url, token=server.token) as api:
            assert await api.probeValue(value) == {
                "when": "1970-01-01T00:00:00.005Z",
                "bytes": [0, 255],
                "size": 2,
                "nested": [[{"": None}]],
            }

    async def test_refuses_more_bytes_than_numbers_can_be_sent(self, server: RunningServer) -> None:
        async with rpcshare.connect(server.url, token=server.token) as api:
            with pytest.raises(RpcError, match="has 500,001 bytes") as caught:
                await api.probeValue({"when": Date(5), "bytes": bytes(500_001)})
            assert caught.value.code == "PAYLOAD_TOO_LARGE"
            assert await api.whoami()


class Square(RpcTarget):
    @rpc_method("square(i)")
    def square(self, i: int) -> int:
        return i * i


async def test_events_that_are_encoded_once_reach_subscribers_in_either(server: RunningServer) -> None:
    url = server.url.replace("http", "ws") + "/rpc"
    headers = {"Authorization": f"Bearer {server.token}"}
    items = [{"type": "message", "data": {"id": "msg_1", "text": "größer"}}]
    async with (
        rpcshare.connect(server.url, token=server.token) as api,
        connect_websocket(url, additional_headers=headers, proxy=None) as in_json,
        Connection(WebSocketTransport(in_json), codec=JSON) as connection,
    ):
        share = await api.createShare("ses_both_encodings_1")
        heard: dict[str, list[Any]] = {"msgpack": [], "json": []}
        first = await api.subscribe(share["id"], heard["msgpack"].append)
        second = await connection.remote_main.subscribe(share["id"], heard["json"].append)
        await api.syncShare(share["id"], share["secret"], items)
        await api.deleteShare(share["id"], share["secret"])
        await api.whoami()
        await connection.remote_main.whoami()
        first.dispose()
        second.dispose()
    assert heard["msgpack"] == heard["json"]
    assert [event["type"] for event in heard["json"]] == ["snapshot", "sync", "deleted"]
    assert heard["json"][1]["data"] == items
