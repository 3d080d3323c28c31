"""Clients of WebSocket over TLS that do not answer its end: their connections end all the same."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from rpcshare.server.http_protocol import HttpProtocol
from rpcshare.server.http_server import HttpServer
from rpcshare.server.websocket_protocol import WebSocketProtocol
from support.authorities import Authority

HANDSHAKE = (
    b"GET /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
VERSION = b"Sec-WebSocket-Version: 13\r\n\r\n"

CLOSE = bytes.fromhex("8880 00000000")
RESERVED = bytes.fromhex("8380 00000000")


class Impatient(WebSocketProtocol):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = 0.1


async def refusing(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no"})


async def closing(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1008})


async def listening(_scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def leaving(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})


def never_closes(port: int, sent: bytes, frame: bytes) -> None:
    """Send a handshake, and a frame once it is answered, but no answer to the end of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        context.wrap_socket(connection) as encrypted,
    ):
        encrypted.sendall(sent)
        try:
            encrypted.recv(65536)
            encrypted.sendall(frame)
            while socket.socket.recv(encrypted, 65536):
                pass
        except ConnectionResetError:
            pass


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("app", "sent", "frame"),
    [
        pytest.param(refusing, VERSION, b"", id="a refused handshake"),
        pytest.param(refusing, b"\r\n", b"", id="a bad handshake"),
        pytest.param(closing, VERSION, b"", id="a session that is over"),
        pytest.param(closing, VERSION, CLOSE, id="a session that both have closed"),
        pytest.param(listening, VERSION, CLOSE, id="a session that the client has closed"),
        pytest.param(listening, VERSION, RESERVED, id="a client that breaks the rules"),
        pytest.param(leaving, VERSION, b"", id="an application that is gone"),
    ],
)
async def test_a_connection_ends_without_a_word_of_its_client(
    tmp_path: Path, app: object, sent: bytes, frame: bytes
) -> None:
    pem = str(Authority(tmp_path).issue_to_server())
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI application
        http=HttpProtocol,
        ws=Impatient,
        lifespan="off",
        log_config=None,
        ssl_certfile=pem,
        ssl_keyfile=pem,
    )
    server = HttpServer(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        await asyncio.to_thread(never_closes, listener.getsockname()[1], HANDSHAKE + sent, frame)
        server.should_exit = True
        await running
