"""The life of a connection that heals: its states, its attempts, its end."""

import socket
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime

import anyio
import pytest
from answering import answering

import rpcshare
from rpcshare import ConnectionState, ErrorCode, SessionClosedError, ShareError
from rpcshare.client import ConnectFailedError
from support.running_server import RunningServer
from support.tcp_proxy import TcpProxy
from support.waiting import begun, limited, reached

pytestmark = pytest.mark.on_trio_too

CONNECTING, CONNECTED, WAITING, CLOSED = ConnectionState


@pytest.fixture
def dead_url() -> Iterator[str]:
    """Where nobody listens, and nobody else will."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


async def test_a_lost_connection_is_made_again(server: RunningServer, proxy: TcpProxy) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        await proxy.cut()
        assert (await api.whoami())["subject"] == "admin"
    assert proxy.accepted == 2


async def test_every_state_is_seen_with_its_reason_and_the_next_attempt(
    server: RunningServer, proxy: TcpProxy
) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    seen = []
    async with connection, aclosing(connection.changes()) as changes:
        seen.append(await anext(changes))
        await proxy.cut()
        seen.extend([await anext(changes) for _ in range(3)])
        await connection.__aexit__(None, None, None)
        seen.extend([change async for change in changes])
    assert [change.state for change in seen] == [CONNECTED, WAITING, CONNECTING, CONNECTED, CLOSED]
    assert [isinstance(change.reason, SessionClosedError) for change in seen] == [
        False,
        True,
        True,
        False,
        False,
    ]
    next_attempt = seen[1].next_attempt
    assert next_attempt is not None
    assert abs((next_attempt - datetime.now(UTC)).total_seconds()) < 5
    assert [change.next_attempt for change in seen if change is not seen[1]] == [None] * 4


async def test_a_server_that_is_never_up_is_tried_again_and_again(dead_url: str) -> None:
    connection = rpcshare.connect(dead_url, reconnect=True)
    async with connection, aclosing(connection.changes()) as changes:
        seen = [await anext(changes) for _ in range(5)]
    assert [change.state for change in seen] == [WAITING, CONNECTING, WAITING, CONNECTING, WAITING]
    assert all(isinstance(change.reason, ConnectFailedError) for change in seen)


async def test_a_server_may_come_up_after_its_client(server: RunningServer, proxy: TcpProxy) -> None:
    proxy.refuses = True
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        assert connection.state is WAITING
        waiting = begun(api.whoami())
        proxy.heal()
        assert (await waiting)["subject"] == "admin"


async def test_leaving_while_waiting_ends_at_once_and_fails_what_waits(dead_url: str) -> None:
    connection = rpcshare.connect(dead_url, reconnect=True)
    async with limited(1):
        async with connection as api:
            waiting = begun(api.whoami())
            await reached(connection, WAITING)
        with pytest.raises(SessionClosedError, match="closed by this side"):
            await waiting
    assert connection.state is CLOSED
    with pytest.raises(SessionClosedError):
        await api.whoami()


async def test_entering_can_be_cancelled(server: RunningServer, proxy: TcpProxy) -> None:
    proxy.stall()  # so that the handshake gets no answer
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    with pytest.raises(TimeoutError):
        async with limited(0.05), connection:
            raise AssertionError("it has been entered")
    assert connection.state is CLOSED


async def test_a_refused_credential_is_raised_on_entering(server: RunningServer) -> None:
    connection = rpcshare.connect(server.url, token="wrong", reconnect=True)
    with pytest.raises(ShareError) as caught:
        await connection.__aenter__()
    assert caught.value.code is ErrorCode.UNAUTHORIZED
    assert connection.state is CLOSED


async def test_each_handshake_has_a_fresh_token(server: RunningServer, proxy: TcpProxy) -> None:
    made = []

    async def token() -> str:
        made.append(server.token)
        return server.token

    async with rpcshare.connect(proxy.url, token=token, reconnect=True) as api:
        await proxy.cut()
        await api.whoami()
    assert len(made) == proxy.accepted == 2


async def test_a_credential_that_is_refused_later_ends_it_for_good(
    server: RunningServer, proxy: TcpProxy
) -> None:
    tokens = iter([server.token, "revoked"])
    connection = rpcshare.connect(proxy.url, token=lambda: next(tokens), reconnect=True)
    async with connection as api:
        broken: list[Exception] = []
        api.on_broken(broken.append)
        await proxy.cut()
        with pytest.raises(SessionClosedError) as caught:
            await api.whoami()
        assert caught.value.code == "UNAUTHORIZED"
        change = connection.last_change
        assert change.state is CLOSED
        assert isinstance(change.reason, ShareError)
        assert broken == [connection.closed]


async def test_a_typed_client_tells_of_a_refused_credential(server: RunningServer, proxy: TcpProxy) -> None:
    tokens = iter([server.token, "revoked"])
    async with rpcshare.ShareClient(proxy.url, token=lambda: next(tokens), reconnect=True) as client:
        await proxy.cut()
        with pytest.raises(ShareError) as caught:
            await client.whoami()
        assert caught.value.code is ErrorCode.UNAUTHORIZED
        assert "revoked" not in str(caught.value)


async def test_a_token_that_cannot_be_had_now_is_asked_for_again(server: RunningServer) -> None:
    answers: Iterator[OSError | str] = iter([OSError("the issuer is away"), server.token])

    def token() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async with rpcshare.connect(server.url, token=token, reconnect=True) as api:
        assert (await api.whoami())["subject"] == "admin"


async def test_a_token_function_that_is_broken_ends_it(server: RunningServer) -> None:
    def token() -> str:
        raise LookupError("no such setting")

    with pytest.raises(LookupError):
        await rpcshare.connect(server.url, token=token, reconnect=True).__aenter__()


def test_a_token_function_is_for_connections_that_heal(server: RunningServer) -> None:
    with pytest.raises(TypeError, match="reconnect=True"):
        rpcshare.connect(server.url, token=lambda: server.token)  # type: ignore[call-overload]


def test_what_is_no_url_is_found_before_anything_waits_for_it() -> None:
    with pytest.raises(ValueError, match="http://"):
        rpcshare.connect("share.example", reconnect=True)


async def test_a_server_that_asks_for_more_time_gets_it() -> None:
    with answering() as busy:
        busy.say(503, {"Retry-After": "120"})
        connection = rpcshare.connect(busy.url, reconnect=True)
        async with connection:
            next_attempt = connection.last_change.next_attempt
    assert next_attempt is not None
    assert 110 < (next_attempt - datetime.now(UTC)).total_seconds() <= 120


async def test_a_half_open_connection_is_found_by_its_silence(server: RunningServer, proxy: TcpProxy) -> None:
    connection = rpcshare.connect(
        proxy.url, token=server.token, reconnect=True, ping_interval=0.05, ping_timeout=0.1
    )
    async with limited(10), connection as api:
        proxy.stall()
        asked = begun(api.whoami())
        change = await reached(connection, WAITING)
        assert "ping timeout" in str(change.reason)
        proxy.heal()
        assert (await asked)["subject"] == "admin"


async def test_a_connection_that_is_alive_and_silent_stays(server: RunningServer, proxy: TcpProxy) -> None:
    connection = rpcshare.connect(
        proxy.url, token=server.token, reconnect=True, ping_interval=0.05, ping_timeout=2
    )
    async with connection as api:
        await anyio.sleep(0.3)  # six pings
        await api.whoami()
    assert proxy.accepted == 1


async def test_a_function_that_is_still_at_work_does_not_delay_the_next_connection(
    server: RunningServer, proxy: TcpProxy
) -> None:
    release, called = anyio.Event(), anyio.Event()

    async def callback(_value: str) -> None:
        called.set()
        await release.wait()

    async with limited(5), rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
        asked = begun(api.probeCallback(callback))
        await called.wait()
        await proxy.cut()
        assert (await api.whoami())["subject"] == "admin"
        release.set()
        with pytest.raises(SessionClosedError):
            await asked
