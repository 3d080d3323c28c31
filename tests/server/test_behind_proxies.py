"""The server behind nginx, HAProxy and Caddy, set up by the files in examples/proxies."""

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

import rpcshare
from support.proxies import free_port, running_proxy
from support.running_server import RunningServer

pytestmark = pytest.mark.slow  # real servers, several of them at a time

ALICE = {"X-Auth-User": "alice"}

PROXIES = ["nginx", "nginx, unbuffered", "haproxy", "caddy"]


@pytest.fixture(scope="module")
def back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    options = ["--trusted-proxy=127.0.0.1", "--proxy-subject-header=X-Auth-User"]
    with RunningServer(tmp_path_factory.mktemp("behind") / "data", *options) as server:
        yield server


@pytest.fixture(scope="module", params=PROXIES)
def front(
    request: pytest.FixtureRequest, back: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of a proxy in front of ``back``."""
    program, _, buffering = request.param.partition(", ")
    changes = {"proxy_http_version 1.1;": "proxy_http_version 1.1; proxy_request_buffering off;"}
    port = free_port()
    with running_proxy(
        program, tmp_path_factory.mktemp("proxy"), port, back.port, changes=changes if buffering else None
    ):
        yield port


NUMBERS = iter(range(10_000))


@pytest.fixture
def private(back: RunningServer) -> str:
    """The id of a private share of alice's."""
    body = {"sessionID": f"ses_behind_{next(NUMBERS):08}", "visibility": "private"}
    made = httpx.post(f"{back.url}/api/share", json=body, headers=ALICE)
    share_id: str = made.json()["id"]
    assert httpx.get(f"{back.url}/api/share/{share_id}").status_code == 401
    return share_id


def exchange(port: int, *sent: bytes) -> bytes:
    """Send parts, and return what comes until the connection ends or nothing more does."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.settimeout(2)
        try:
            for part in sent:
                client.sendall(part)
            while part := client.recv(65536):
                received += part
        except OSError:
            pass
    return received


def hidden(share_id: str) -> bytes:
    """Return a request that only alice may make, in her name."""
    body = b'{"visibility": "link"}'
    head = f"PATCH /api/share/{share_id} HTTP/1.1\r\nHost: x\r\nX-Auth-User: alice\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


LINES = b"\r\n" * 30_000  # which a parser skips, and which make a body arrive in parts
HEAD = b"POST /api/share HTTP/1.1\r\nHost: x\r\n"
HANDSHAKE = (
    b"GET /rpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def with_length(head: bytes, body: bytes) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def in_chunks(head: bytes, body: bytes, trailers: bytes = b"") -> bytes:
    return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers)


ATTACKS = {
    "h2c": lambda body: with_length(HEAD + b"Upgrade: h2c\r\nConnection: upgrade\r\n", LINES + body),
    "h2c, without Connection": lambda body: with_length(HEAD + b"Upgrade: h2c\r\n", LINES + body),
    "h2c in chunks": lambda body: in_chunks(HEAD + b"Upgrade: h2c\r\nConnection: upgrade\r\n", LINES + body),
    "a WebSocket by POST": lambda body: with_length(
        HANDSHAKE.replace(b"GET /rpc", b"POST /api/share"), LINES + body
    ),
    "a WebSocket with a body": lambda body: with_length(HANDSHAKE, body),
    "a WebSocket of a wrong version": lambda body: HANDSHAKE.replace(b"13", b"99") + b"\r\n" + body,
    "a WebSocket that is refused": lambda body: HANDSHAKE + b"\r\n" + body,
    "both lengths": lambda body: (
        HEAD + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(body)) + body
    ),
    "a hidden coding": lambda body: (
        HEAD + b"Content-Length: %d\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" % (5 + len(body)) + body
    ),
    "chunks in HTTP/1.0": lambda body: (
        HEAD.replace(b"1.1", b"1.0")
        + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n"
        % (5 + len(body))
        + body
    ),
    "a chunk's extension": lambda body: (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    ),
    "a GET with a body": lambda body: with_length(b"GET /healthz HTTP/1.1\r\nHost: x\r\n", body),
    "an Expect": lambda body: with_length(HEAD + b"Expect: 100-continue\r\n", body),
    "an absolute target": lambda body: with_length(HEAD.replace(b" /api", b" http://x/api"), LINES + body),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nobody_gets_a_second_request_past_a_proxy(
    front: int, back: RunningServer, private: str, attack
) -> None:
    exchange(front, attack(hidden(private)))
    assert httpx.get(f"{back.url}/api/share/{private}").status_code == 401


def test_a_trailer_is_not_the_proxy_s_word(front: int, private: str) -> None:
    body = b'{"visibility": "link"}'
    head = f"PATCH /api/share/{private} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTrailer: X-Auth-User\r\n"
    answer = exchange(front, in_chunks(head.encode(), body, b"X-Auth-User: alice\r\n"))
    assert not answer.startswith(b"HTTP/1.1 200 ")
    assert httpx.get(f"http://127.0.0.1:{front}/api/share/{private}").status_code == 401


def test_many_requests_go_over_connections_that_are_used_again(front: int, back: RunningServer) -> None:
    with httpx.Client(headers={"Authorization": f"Bearer {back.token}"}, timeout=30) as client:
        session = {"sessionID": f"ses_behind_{next(NUMBERS):08}"}
        share_id = client.post(f"http://127.0.0.1:{front}/api/share", json=session).json()["id"]
        for number in range(50):
            item = {"type": "part", "data": {"id": f"prt_{number}", "text": "x" * 1000 * number}}
            answer = client.post(f"http://127.0.0.1:{front}/api/share/{share_id}/sync", json={"data": [item]})
            assert answer.json()["syncCount"] == number + 1


async def test_calls_and_callbacks_pass(front: int, back: RunningServer) -> None:
    async with rpcshare.connect(f"http://127.0.0.1:{front}", token=back.token) as api:
        assert await api.probeCallback(lambda word: f"{word}, heard") == "server-called, heard"
        data = base64.b64encode(bytes(300_000)).decode()
        made = await api.createShare(
            f"ses_behind_{next(NUMBERS):08}", [{"type": "part", "data": {"id": "prt_1", "text": data}}]
        )
        shared = await api.getShare(made["id"])
    assert shared["parts"][0]["text"] == data


def test_a_websocket_with_a_long_cookie_passes(front: int, back: RunningServer) -> None:
    authorized = HANDSHAKE + b"Authorization: Bearer %b\r\n" % back.token.encode()
    with socket.create_connection(("127.0.0.1", front), 30) as client:
        client.sendall(authorized + b"Cookie: sso=" + b"x" * 16_000 + b"\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 101 ")


def test_events_arrive_as_they_happen(front: int, back: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {back.token}"}
    session = {"sessionID": f"ses_behind_{next(NUMBERS):08}"}
    share_id = httpx.post(f"{back.url}/api/share", json=session, headers=headers).json()["id"]

    def sync() -> None:
        item = {"type": "message", "data": {"id": "msg_1"}}
        httpx.post(f"{back.url}/api/share/{share_id}/sync", json={"data": [item]}, headers=headers)

    kinds = []
    with httpx.stream(
        "GET", f"http://127.0.0.1:{front}/api/share/{share_id}/events", headers=headers, timeout=30
    ) as answer:
        assert answer.headers["cache-control"] == "private, no-store, no-transform"
        for line in answer.iter_lines():
            if line.startswith("data: "):
                kinds.append(json.loads(line.removeprefix("data: "))["type"])
                if kinds == ["snapshot"]:
                    threading.Thread(target=sync).start()
                else:
                    break
    assert kinds == ["snapshot", "sync"]


async def test_a_body_that_waits_for_leave_is_taken(front: int, back: RunningServer) -> None:
    body = json.dumps({"sessionID": f"ses_behind_{next(NUMBERS):08}"}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", front)
    request = f"POST /api/share HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {back.token}\r\n"
    writer.write(f"{request}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).startswith(b"HTTP/1.1 100 ")
    writer.write(body)
    while (head := await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).startswith(b"HTTP/1.1 100 "):
        pass  # a proxy's leave, and the server's that it passes on
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
