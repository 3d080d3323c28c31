"""A process that is forked while a connection is open: it fails at once, and the parent's goes on."""

import asyncio
import os
import signal
from collections.abc import Callable, Generator

import pytest
import trio

import rpcshare
from support.running_server import RunningServer

pytestmark = [
    pytest.mark.on_trio_too,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here"),
    # Which is what this is about: from 3.12 on, Python warns of it.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
]


def in_a_fork(work: Callable[[], object]) -> str:
    """Return what ``work`` does in a forked process, as text: what it returned, or the error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            said = f"returned {work()!r}"
        except BaseException as exc:  # noqa: BLE001 -- whatever it is, it must not go on in the test's frames
            kinds = "RuntimeError: " if isinstance(exc, RuntimeError) else f"{type(exc).__name__}: "
            said = kinds + str(exc)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "it waits for ever"
    return said


CALLS: dict[str, Callable[[rpcshare.BlockingShareClient], object]] = {
    "a method": lambda client: client.whoami(),
    "a method by its name on the wire": lambda client: client.probeCallback(print),
    "the state": lambda client: client.state,
    "a subscription": lambda client: next(client.subscribe("abcdefgh")),
}


@pytest.mark.parametrize("reconnect", [False, True])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_blocking_client_raises_at_once(server: RunningServer, call, reconnect: bool) -> None:
    with rpcshare.connect_blocking(server.url, token=server.token, reconnect=reconnect) as client:
        assert in_a_fork(lambda: call(client)).startswith("RuntimeError: this connection belongs to")
        assert client.whoami().subject == "admin"


def test_a_subscription_that_was_begun_raises_and_can_be_left(server: RunningServer) -> None:
    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        share = client.create_share("ses_forked_0001", [])
        events = client.subscribe(share.id)
        assert isinstance(events, Generator)
        next(events)
        assert in_a_fork(lambda: next(events)).startswith("RuntimeError")
        assert in_a_fork(events.close) == "returned None"
        events.close()


def test_the_block_can_be_left(server: RunningServer) -> None:
    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        assert in_a_fork(lambda: client.__exit__(None, None, None)) == "returned None"
        assert client.whoami().subject == "admin"


def test_another_connection_can_be_made(server: RunningServer) -> None:
    def connect_again() -> str | None:
        with rpcshare.connect_blocking(server.url, token=server.token) as again:
            return again.whoami().subject

    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        assert in_a_fork(connect_again) == "returned 'admin'"
        assert client.whoami().subject == "admin"


@pytest.mark.parametrize("reconnect", [False, True])
async def test_a_stub_raises_on_another_loop_and_the_parent_s_goes_on(
    server: RunningServer, reconnect: bool
) -> None:
    async with rpcshare.connect(server.url, token=server.token, reconnect=reconnect) as api:

        async def ask() -> object:
            return await api.whoami()

        assert in_a_fork(lambda: _on_a_loop(ask)).startswith("RuntimeError: this connection belongs to")
        assert (await api.whoami())["subject"] == "admin"


@pytest.mark.parametrize("reconnect", [False, True])
async def test_a_block_can_be_left_on_another_loop(server: RunningServer, reconnect: bool) -> None:
    connection = rpcshare.connect(server.url, token=server.token, reconnect=reconnect)
    async with connection as api:
        left = in_a_fork(lambda: _on_a_loop(lambda: connection.__aexit__(None, None, None)))
        assert left == "returned None"
        assert (await api.whoami())["subject"] == "admin"


def _on_a_loop(work):
    """Do ``work`` on a loop of this process; the fork happened within one of the other's."""
    asyncio._set_running_loop(None)
    if not trio.lowlevel.in_trio_run():
        return asyncio.new_event_loop().run_until_complete(work())
    trio._core._run.GLOBAL_RUN_CONTEXT.__dict__.clear()
    return trio.run(work)
