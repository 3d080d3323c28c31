"""The cases against the target of this package, and against the same target made with npm's capnweb."""

from collections.abc import Iterator
from functools import partial

import pytest
import trio
from websockets.trio.server import ServerConnection, serve

from conformance.servers import needs_npm, npm_target, over_websocket
from rpcshare.conformance.cases import load_cases
from rpcshare.conformance.runner import run_cases
from rpcshare.conformance.serving import serving
from rpcshare.conformance.target import ConformanceTarget
from rpcshare.rpc import Connection, WebSocketTransport
from support.other_thread import in_other_thread

pytestmark = pytest.mark.on_trio_too


async def failures(url: str, **options: bool) -> list[object]:
    outcomes = [outcome async for outcome in run_cases(url, load_cases(), **options)]
    assert len(outcomes) > 80
    return [outcome.report() for outcome in outcomes if not outcome.passed]


async def test_our_target_passes_over_websocket():
    with in_other_thread(serving()) as url:
        assert await failures(over_websocket(url)) == []


async def test_our_target_passes_over_http():
    with in_other_thread(serving()) as url:
        assert await failures(url) == []


async def test_our_target_passes_in_messagepack():
    with in_other_thread(serving()) as url:
        assert await failures(over_websocket(url), messagepack=True) == []


@pytest.mark.slow
def test_our_target_passes_on_trio():
    async def handle(websocket: ServerConnection) -> None:
        await Connection(WebSocketTransport(websocket), ConformanceTarget(), throttle=True).run()

    async def failures_on_trio() -> list[object]:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, handle, 0, host="127.0.0.1"))
            found = await failures(f"ws://127.0.0.1:{server.listeners[0].socket.getsockname()[1]}/")
            nursery.cancel_scope.cancel()
        return found

    assert trio.run(failures_on_trio) == []


@pytest.fixture(scope="module")
def npm() -> Iterator[str]:
    with npm_target() as url:
        yield url


@pytest.mark.node
@needs_npm
async def test_the_target_made_with_npm_capnweb_passes_over_websocket(npm):
    assert await failures(over_websocket(npm)) == []


@pytest.mark.node
@needs_npm
async def test_the_target_made_with_npm_capnweb_passes_over_http(npm):
    assert await failures(npm) == []
