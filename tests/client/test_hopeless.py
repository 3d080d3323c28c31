"""What reconnecting can never mend is said, and what it mends is logged once."""

import logging

import pytest
from answering import answering

import rpcshare
from rpcshare import ConnectionState, SessionClosedError, ShareError
from rpcshare.client import ConnectFailedError, reconnecting
from support.running_server import RunningServer
from support.tcp_proxy import proxied
from support.waiting import eventually, limited, reached

pytestmark = pytest.mark.on_trio_too


@pytest.mark.parametrize(
    "status", [200, 204, 300, 304, 400, 402, 404, 405, 407, 410, 421, 426, 501, 505, 511]
)
async def test_an_answer_that_will_not_change_is_raised_on_entering(status: int) -> None:
    with answering() as server:
        server.say(status)
        with pytest.raises(ConnectFailedError, match=f"answered {status} to the handshake") as caught:
            await rpcshare.connect(server.url, reconnect=True).__aenter__()
        assert caught.value.is_permanent


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_is_raised_on_entering(status: int) -> None:
    with answering() as server:
        server.say(status)
        with pytest.raises(ShareError):
            await rpcshare.connect(server.url, reconnect=True).__aenter__()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
async def test_an_answer_that_may_change_is_waited_for(status: int) -> None:
    with answering() as server:
        server.say(status)
        async with rpcshare.connect(server.url, reconnect=True):
            await eventually(lambda: len(server.requests) > 1)


@pytest.mark.parametrize(
    "spoken", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"220 smtp\r\n"]
)
async def test_another_protocol_is_raised_on_entering(spoken: bytes) -> None:
    with answering() as server:
        server.bytes = spoken
        with pytest.raises(ConnectFailedError) as caught:
            await rpcshare.connect(server.url, reconnect=True).__aenter__()
        assert caught.value.is_permanent


async def test_tls_where_none_is_spoken_is_raised_on_entering() -> None:
    with answering() as server:
        server.bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        with pytest.raises(ConnectFailedError):
            await rpcshare.connect(server.url.replace("http", "https"), reconnect=True).__aenter__()


async def test_a_server_that_hangs_up_is_tried_again() -> None:
    with answering() as server:
        server.bytes = b""
        async with rpcshare.connect(server.url, reconnect=True):
            await eventually(lambda: len(server.requests) > 1)


@pytest.mark.parametrize("patience", [0.0, 300.0])
async def test_a_server_that_was_there_has_minutes_to_come_back(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, patience: float, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconnecting, "PERMANENT_FAILURES_LAST", patience)
    with proxied(server.url) as proxy, answering() as other:
        other.say(404)
        connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
        async with connection as api:
            monkeypatch.setattr(connection, "_attempt", lambda _token: rpcshare.connect(other.url))
            await proxy.cut()
            if patience:
                await eventually(lambda: len(other.requests) > 1)
                assert connection.state is not ConnectionState.CLOSED
                return
            with pytest.raises(SessionClosedError, match=r"given up: .* answered 404"):
                await api.whoami()
    assert "the connection is given up" in caplog.text


async def test_the_first_failure_of_many_is_logged_and_so_is_its_end(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rpcshare.client")
    with proxied(server.url) as proxy:
        proxy.refuses = True
        connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
        async with limited(20), connection:
            for _ in range(2):
                await reached(connection, ConnectionState.WAITING)
                await reached(connection, ConnectionState.CONNECTING)
            proxy.heal()
            await reached(connection, ConnectionState.CONNECTED)
    lines = [record.getMessage() for record in caplog.records if record.name == "rpcshare.client"]
    assert len(lines) == 2
    assert lines[0].startswith("no connection, trying again until there is one: ")
    assert lines[1] == "connected again"
    assert server.token not in caplog.text
