"""Bodies that are half there: of one network only so much is held, whatever it may do."""

import select
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from support.running_server import RunningServer

SIZE = 64 * 1024
AT_ONCE = 16


@pytest.fixture
def small_server(tmp_path: Path):
    with RunningServer(tmp_path / "data", f"--max-message-size={SIZE}") as server:
        yield server


def half_sent(server: RunningServer) -> socket.socket:
    """Return a connection with all but the last byte of a body sent."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    head = f"POST /api/share/nowhere0/sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n"
    connection.sendall(head.encode() + b" " * (SIZE - 1))
    return connection


def answer(connection: socket.socket) -> bytes:
    return connection.recv(65536)


def test_what_is_over_the_budget_is_refused_and_the_rest_goes_on(small_server: RunningServer) -> None:
    with ExitStack() as stack:
        begun = [stack.enter_context(half_sent(small_server)) for _ in range(AT_ONCE + 2)]
        refused = select.select(begun, [], [], 10)[0]
        for connection in begun:
            if connection not in refused:
                connection.sendall(b" ")
        answers = [answer(connection) for connection in begun]
    over = [told for told in answers if told.startswith(b"HTTP/1.1 429 ")]
    assert 1 <= len(over) <= 2
    assert all(b"retry-after: 1" in told.lower() for told in over)
    assert sum(told.startswith(b"HTTP/1.1 400 ") for told in answers) == len(answers) - len(over)


def test_there_is_room_again_when_they_are_gone(small_server: RunningServer) -> None:
    with ExitStack() as stack:
        begun = [stack.enter_context(half_sent(small_server)) for _ in range(AT_ONCE + 1)]
        assert select.select(begun, [], [], 10)[0]
    # The server hears of each end by itself, so the first may still be counted for a moment.
    for _ in range(100):
        body = " " * (SIZE - 100)
        status = httpx.post(f"{small_server.url}/api/share/nowhere0/sync", content=body).status_code
        if status != 429:
            break
    assert status == 400
