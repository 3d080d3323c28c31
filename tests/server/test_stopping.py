"""Requests that are still arriving when the server stops, and handshakes that it turns away."""

import socket
from pathlib import Path

import pytest

from support.running_server import RunningServer

pytestmark = pytest.mark.slow  # real servers, several of them at a time


@pytest.mark.parametrize("path", ["/api/share", "/rpc"])
def test_a_body_that_is_half_there_holds_up_no_stop_and_is_no_fault_of_ours(
    tmp_path: Path, path: str
) -> None:
    with (
        RunningServer(tmp_path / "data") as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
        # The server says that it waits for the body.
        client.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(b'{"sessionID"')
        assert server.stop() == 0
        answer = client.makefile("rb").read()
        log = server.log.read_text()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the body is not complete" in answer
    assert "xception" not in log


def test_a_token_that_is_offered_with_padding_is_a_bad_credential(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(
            b"GET /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Protocol: rpcshare.json, bearer.VE9LRQ==\r\n\r\n"
        )
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"code":"UNAUTHORIZED"' in answer
