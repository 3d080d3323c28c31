"""Server-Sent Events and event sockets, as their readers see them."""

import asyncio
import contextlib
import json
import socket
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
import websockets
from event_readers import Share, read_stream, stream
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from rpcshare.auth.admin_token import ADMIN
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.credential import Credential
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.server import event_streams
from rpcshare.server.app import create_app
from rpcshare.server.http_protocol import HttpProtocol
from rpcshare.server.websocket_protocol import WebSocketProtocol
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore
from support.running_server import RunningServer


def types(events: list[dict]) -> list[tuple[str, int | None]]:
    return [(event["type"], event.get("syncCount")) for event in events]


# Both kinds of reader


@asynccontextmanager
async def streamed(share: Share, query: str = "") -> AsyncIterator[AsyncIterator[dict]]:
    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream("GET", f"{share.url}/events{query}") as answer,
    ):
        yield (sent.event async for sent in read_stream(answer.aiter_lines()))


@asynccontextmanager
async def over_socket(share: Share, query: str = "") -> AsyncIterator[AsyncIterator[dict]]:
    async with websockets.connect(share.socket_url + query) as connection:
        yield (json.loads(message) async for message in connection)


READERS = pytest.mark.parametrize("reading", [streamed, over_socket])


@READERS
async def test_a_reader_gets_a_snapshot_then_each_sync_then_the_end(server: RunningServer, reading) -> None:
    share = Share(server, f"ses_events_all_{reading.__name__}")
    async with reading(share) as events:
        seen = [await anext(events)]
        for n in range(3):
            await asyncio.to_thread(share.sync, f"prt_{n}")
            seen.append(await anext(events))
        await asyncio.to_thread(share.delete)
        seen += [event async for event in events]
    assert types(seen) == [("snapshot", 0), ("sync", 1), ("sync", 2), ("sync", 3), ("deleted", None)]
    assert {event["shareID"] for event in seen} == {share.id}


@READERS
async def test_a_reader_that_has_some_gets_the_rest(server: RunningServer, reading) -> None:
    share = Share(server, f"ses_events_some_{reading.__name__}")
    for n in range(3):
        await asyncio.to_thread(share.sync, f"prt_{n}")
    async with reading(share, "?fromSyncCount=1") as events:
        assert types([await anext(events), await anext(events)]) == [("sync", 2), ("sync", 3)]


@pytest.mark.slow
@READERS
async def test_a_server_that_stops_lets_readers_go_at_once(tmp_path: Path, reading) -> None:
    with RunningServer(tmp_path / "data") as server:
        share = Share(server, "ses_events_stop_0001")
        async with reading(share) as events:
            assert (await anext(events))["type"] == "snapshot"
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            # websockets' own iterator takes 1001 for an ordinary end, and any other code but 1000 for none.
            assert [event async for event in events] == []
            assert await stopping == 0
        assert "rror" not in server.log.read_text()


# Server-Sent Events


@pytest.mark.slow
async def test_an_id_is_a_sync_count_and_brings_a_reader_back_after_a_kill(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        share = Share(server, "ses_events_kill_0001")
        async with stream(share.url) as events:
            await asyncio.to_thread(share.sync, "prt_1")
            last = [await anext(events), await anext(events)][-1]
        assert last.id == "1"
        share.sync("prt_2")
        server.kill()
        server.restart()
        share.sync("prt_3")
        # A browser asks for the address of its first time; what it has seen since counts more.
        async with stream(share.url, Last_Event_ID=last.id) as events:
            first = await anext(events)
        assert (first.id, first.event["type"]) == ("2", "sync")


async def test_a_stream_begins_with_when_to_come_back_and_says_that_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_streams, "HEARTBEAT", 0.01)
    async with (
        serving({}) as (url, share_id),
        httpx.AsyncClient() as client,
        client.stream("GET", f"{url}/api/share/{share_id}/events") as answer,
    ):
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 2000"
        while await anext(lines) != ":":
            pass


@pytest.mark.parametrize("seen", ["-1", "x", "1.5", "99999999999999999999", "\u0663"])
def test_a_count_that_is_none_is_refused(server: RunningServer, seen: str) -> None:
    share = Share(server, "ses_events_count_0001")
    for answer in (
        httpx.get(f"{share.url}/events", params={"fromSyncCount": seen}),
        httpx.get(f"{share.url}/events", headers=[(b"Last-Event-ID", seen.encode())]),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")


def test_a_share_that_is_not_there_has_no_events(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/api/shares/nowhere0/events")
    assert (answer.status_code, answer.json()["code"]) == (404, "SHARE_NOT_FOUND")


def test_a_head_of_a_stream_ends(server: RunningServer) -> None:
    share = Share(server, "ses_events_head_0001")
    answer = httpx.head(f"{share.url}/events")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.slow
async def test_two_hundred_readers_get_every_sync(server: RunningServer) -> None:
    share = Share(server, "ses_events_many_0001")
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=30)
        )
        readers = []
        for _ in range(200):
            answer = await stack.enter_async_context(client.stream("GET", f"{share.url}/events"))
            readers.append(read_stream(answer.aiter_lines()))
        await asyncio.gather(*(anext(reader) for reader in readers))
        for n in range(10):
            await asyncio.to_thread(share.sync, f"prt_{n}")

        async def until_last(reader: AsyncIterator) -> list[str]:
            ids: list[str] = []
            while not ids or ids[-1] != "10":
                ids.append((await anext(reader)).id)
            return ids

        seen = await asyncio.gather(*(until_last(reader) for reader in readers))
    assert all(ids == sorted(ids, key=int) for ids in seen)


@pytest.mark.slow
def test_readers_that_do_not_read_cost_the_server_little(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        share = Share(server, "ses_events_stuck_0001")
        for n in range(8):
            share.sync(f"prt_{n}", "x" * 1_000_000)
        before = resident(server)
        readers = [ask(server, f"/api/share/{share.id}/events") for _ in range(50)]
        for _ in range(5):
            share.sync("prt_0", "y" * 1_000_000)  # which the server tells all of them
        grown = resident(server) - before
        for reader in readers:
            reader.close()
    assert grown < 100 * 2**20  # the share 50 times would be 400


def ask(server: RunningServer, path: str) -> socket.socket:
    """Return a connection over which something was asked for, with no more read than that it is answered."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def resident(server: RunningServer) -> int:
    """Return how many bytes of memory the server has."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


@pytest.mark.slow
async def test_a_server_stops_beside_a_reader_that_does_not_read(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        share = Share(server, "ses_events_stuck_0002")
        for n in range(8):
            share.sync(f"prt_{n}", "x" * 1_000_000)
        with ask(server, f"/api/share/{share.id}/events"):
            assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()


# Event sockets


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/ws/nowhere0", {}, 404),
        ("/ws/{id}?fromSyncCount=x", {}, 400),
        ("/ws/{id}", {"Origin": "https://elsewhere.example"}, 403),
        ("/ws/{id}", {"Authorization": "Bearer wrong"}, 401),
        ("/ws/{id}", {"Sec-WebSocket-Protocol": "rpcshare.json, bearer.d3Jvbmc="}, 401),
        ("/rpc", {"Sec-WebSocket-Protocol": "rpcshare.json, bearer.d3Jvbmc="}, 401),
    ],
)
async def test_a_handshake_that_is_refused_says_why(
    server: RunningServer, path: str, headers: dict[str, str], status: int
) -> None:
    share = Share(server, "ses_events_refused_01")
    url = server.url.replace("http", "ws", 1) + path.format(id=share.id)
    with pytest.raises(InvalidStatus) as refused:
        await websockets.connect(url, additional_headers=headers, origin=None)
    assert refused.value.response.status_code == status
    assert refused.value.response.headers["X-Content-Type-Options"] == "nosniff"
    assert "code" in json.loads(refused.value.response.body)


async def test_a_browser_that_offers_a_token_is_answered_with_a_subprotocol(server: RunningServer) -> None:
    share = Share(server, "ses_events_browser_01")
    offered = [Subprotocol(name) for name in ("rpcshare.json", f"bearer.{websockets_token(server.token)}")]
    async with websockets.connect(share.socket_url, subprotocols=offered) as connection:
        assert connection.subprotocol == "rpcshare.json"
        assert json.loads(await connection.recv())["type"] == "snapshot"


def websockets_token(token: str) -> str:
    return urlsafe_b64encode(token.encode()).decode().rstrip("=")


async def test_what_a_reader_says_is_ignored_up_to_a_limit(server: RunningServer) -> None:
    share = Share(server, "ses_events_chatter_01")
    async with websockets.connect(share.socket_url) as connection:
        await connection.recv()
        await connection.send("hello?")
        await asyncio.to_thread(share.sync, "prt_1")
        assert json.loads(await connection.recv())["syncCount"] == 1
        await connection.send("x" * 70_000)
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_a_large_message_is_refused_before_it_is_there(server: RunningServer) -> None:
    share = Share(server, "ses_events_socket_large_1")
    async with websockets.connect(share.socket_url) as connection:
        await connection.recv()
        with contextlib.suppress(ConnectionClosed):
            await connection.send(iter(["x" * 65_536, "x" * 65_536, "x"]))  # one message, a byte too long
        await asyncio.wait_for(connection.wait_closed(), 5)
        assert connection.close_code == 1009


def test_a_request_that_is_no_handshake_is_told_to_be_one(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/ws/anything")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")


# Credentials that end


class Passes:
    """Verifies the tokens of passes, each with a standing."""

    def __init__(self, standings: dict[str, CredentialValidity]) -> None:
        self._standings = standings

    async def verify(self, credential: Credential) -> Caller | None:
        standing = self._standings.get(credential.value)
        if standing is None or standing.is_over:
            return None
        return Caller("alice", frozenset({Scope.READ}), standing=standing)


@asynccontextmanager
async def serving(standings: dict[str, CredentialValidity], **options: Any) -> AsyncIterator[tuple[str, str]]:
    """Serve a share in this process, with options of uvicorn's; yield the URL, and the share's id."""
    service = ShareService(
        MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), "http://share.example")
    )
    share = await service.create(ADMIN, "ses_events_standing_01")
    authenticator = Authenticator([Passes(standings)])
    app, connections = create_app(Settings(), service, authenticator, "http://share.example")
    await service.sync(
        ADMIN, share.id, None, [{"type": "part", "data": {"id": "prt_1", "text": "x" * 2**24}}]
    )
    config = uvicorn.Config(
        app, http=HttpProtocol, ws=WebSocketProtocol, lifespan="off", log_config=None, **options
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", share.id
        finally:
            await connections.drain()
            server.should_exit = True
            await running
            await connections.close()
            await service.close()


async def test_a_reader_whose_credential_ends_gets_no_more() -> None:
    standing = CredentialValidity()
    headers = {"Authorization": "Bearer pass"}
    async with serving({"pass": standing}) as (url, share_id), httpx.AsyncClient() as client:
        socket_url = f"{url.replace('http', 'ws', 1)}/ws/{share_id}"
        async with (
            client.stream("GET", f"{url}/api/share/{share_id}/events", headers=headers) as answer,
            websockets.connect(socket_url, additional_headers=headers, max_size=None) as connection,
        ):
            events = read_stream(answer.aiter_lines())
            assert (await anext(events)).event["type"] == "snapshot"
            await connection.recv()
            standing.end()
            # It may be told why before it ends.
            assert {event.event["type"] async for event in events} <= {"error"}
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(_read_errors(connection), 10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def _read_errors(connection: websockets.ClientConnection) -> None:
    while json.loads(await connection.recv())["type"] == "error":
        pass


async def test_a_peer_that_is_gone_is_let_go_of_whatever_waits_for_it() -> None:
    async with (
        serving({}, ws_ping_interval=0.05, ws_ping_timeout=0.05) as (url, share_id),
        httpx.AsyncClient() as client,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port, limit=1)
        writer.write(
            f"GET /ws/{share_id} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        await reader.readexactly(100)  # and nothing after

        async def watched() -> bool:
            return "\nrpcshare_event_streams 1.0\n" in (await client.get(f"{url}/metrics")).text

        assert await watched()
        async with asyncio.timeout(8):
            while await watched():
                pass
        writer.close()
