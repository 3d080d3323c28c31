"""Clients that are entered, left, cancelled and forgotten: on asyncio, on trio, on one within the other."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

import rpcshare
from rpcshare import rpc
from support.running_server import RunningServer
from support.waiting import eventually, limited

pytestmark = pytest.mark.on_trio_too

both_kinds = pytest.mark.parametrize("reconnect", [False, True])


@both_kinds
async def test_one_task_enters_and_another_leaves(server: RunningServer, reconnect: bool) -> None:
    connection = rpcshare.connect(server.url, token=server.token, reconnect=reconnect)
    entered: list[Any] = []

    async def enter() -> None:
        entered.append(await connection.__aenter__())

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
    assert (await entered[0].whoami())["subject"] == "admin"
    async with anyio.create_task_group() as group:
        group.start_soon(connection.__aexit__, None, None, None)
    assert connection.closed is not None


@both_kinds
async def test_who_is_cancelled_closes_the_connection(server: RunningServer, reconnect: bool) -> None:
    connection = rpcshare.connect(server.url, token=server.token, reconnect=reconnect)
    with anyio.CancelScope() as scope:
        async with connection as api:
            await api.whoami()
            scope.cancel()
            await anyio.sleep_forever()
    assert connection.closed is not None


async def test_a_timeout_of_one_call_leaves_the_others(server: RunningServer) -> None:
    release = anyio.Event()

    async def slow(_value: str) -> str:
        await release.wait()
        return "late"

    async with limited(20), rpcshare.connect(server.url, token=server.token) as api:
        async with anyio.create_task_group() as group:
            late: list[object] = []

            async def ask() -> None:
                late.append(await api.probeCallback(slow))

            group.start_soon(ask)
            with pytest.raises(TimeoutError):
                async with limited(0.05):
                    await api.probeCallback(slow)
            assert (await api.whoami())["subject"] == "admin"
            release.set()
        assert late == ["late"]


async def test_an_error_within_the_block_comes_out_as_it_is(server: RunningServer) -> None:
    with pytest.raises(KeyError):
        async with rpcshare.ShareClient(server.url, token=server.token):
            raise KeyError


async def test_what_is_no_certificate_of_a_trusted_authority_is_refused_for_good(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from support.authorities import Authority

    folder = tmp_path_factory.mktemp("tls")
    shown = Authority(folder / "ca").issue_to_server()
    with (
        RunningServer(folder / "data", f"--tls-cert={shown}", f"--tls-key={shown}") as secure,
        pytest.raises(rpcshare.ConnectFailedError, match="CERTIFICATE_VERIFY_FAILED") as caught,
    ):
        await rpcshare.connect(secure.url, token=secure.token).__aenter__()
    assert caught.value.is_permanent


async def test_calls_of_a_local_stub_begin_in_order() -> None:
    begun: list[int] = []

    class Target(rpc.RpcTarget):
        @rpc.rpc_method("noted(number)")
        async def noted(self, number: int) -> int:
            begun.append(number)
            await anyio.lowlevel.checkpoint()
            return number

    stub = rpc.stub(Target())
    promises = [stub.noted(number) for number in range(50)]
    assert [await promise for promise in promises] == begun == list(range(50))


async def test_the_source_of_a_stream_is_cancelled_with_the_session_that_reads_it() -> None:
    near, far = rpc.memory_pair()
    ended: list[str] = []

    async def values() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    class Source(rpc.RpcTarget):
        @rpc.rpc_method("values()")
        def values(self) -> rpc.ReadableStream:
            return rpc.ReadableStream(values())

    async with rpc.Connection(far, Source(), throttle=True):
        async with rpc.Connection(near) as client:
            assert await anext(await client.remote_main.values()) == 1
        await eventually(lambda: ended == ["cancelled"])


FORGOTTEN = """
import sys, anyio, rpcshare
url, token, backend = sys.argv[1:]

async def asked():
    async with rpcshare.connect(url, token=token, reconnect=True) as api:
        yield await api.whoami()

async def main():
    global answers
    answers = asked()
    print((await anext(answers))["subject"])

anyio.run(main, backend=backend)
print("over")
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_generator_that_was_forgotten_in_its_block_ends_with_the_run(
    server: RunningServer, backend: str
) -> None:
    command = [sys.executable, "-W", "error", "-c", FORGOTTEN, server.url, server.token, backend]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.stdout, ended.returncode) == ("admin\nover\n", 0)


INTERRUPTED = """
import sys, anyio, rpcshare
url, token, backend = sys.argv[1:]

async def main():
    async with rpcshare.connect(url, token=token, reconnect=True) as api:
        print((await api.whoami())["subject"], flush=True)
        await anyio.sleep_forever()

anyio.run(main, backend=backend)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interrupt_ends_the_program(server: RunningServer, backend: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, server.url, server.token, backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "admin\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1].splitlines()[-1] == "KeyboardInterrupt"


def test_trio_as_a_guest_of_asyncio_has_connections_of_its_own(server: RunningServer) -> None:
    async def subject() -> str:
        async with rpcshare.connect(server.url, token=server.token) as api:
            return str((await api.whoami())["subject"])

    async def host() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            subject, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        return await subject(), (await done).unwrap()

    assert asyncio.run(asyncio.wait_for(host(), 20)) == ("admin", "admin")
