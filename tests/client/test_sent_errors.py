"""What a client sends to a server for the errors of its own functions."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import ServerConnection, serve

import rpcshare
from rpcshare.rpc import Connection, RpcError, RpcTarget, Stub, WebSocketTransport, rpc_method


class Caller(RpcTarget):
    @rpc_method("errorOf(func)")
    async def error_of(self, func: Stub) -> list[object]:
        try:
            await func()
        except RpcError as exc:
            return [exc.name, exc.message, exc.stack, exc.properties]
        raise AssertionError


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that says what came of a function that was passed to it."""

    async def handle(websocket: ServerConnection) -> None:
        await Connection(WebSocketTransport(websocket), Caller(), call_grace=0).run()

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/rpc"


def failing() -> None:
    raise RpcError("secret", name="RangeError", stack="a frame", properties={"more": 1})


@pytest.mark.parametrize("reconnect", [False, True])
class TestTheErrorOfACallback:
    async def test_is_sent_without_its_stack(self, url: str, reconnect: bool) -> None:
        async with asyncio.timeout(20), rpcshare.connect(url, reconnect=reconnect) as api:
            assert await api.errorOf(failing) == ["RangeError", "secret", None, {"more": 1}]

    async def test_is_sent_with_its_stack_if_on_send_error_returns_it(
        self, url: str, reconnect: bool
    ) -> None:
        connecting = rpcshare.connect(url, reconnect=reconnect, on_send_error=lambda error: error)
        async with asyncio.timeout(20), connecting as api:
            assert await api.errorOf(failing) == ["RangeError", "secret", "a frame", {"more": 1}]

    async def test_is_replaced_by_another_that_on_send_error_returns(self, url: str, reconnect: bool) -> None:
        seen: list[BaseException] = []

        def hidden(error: BaseException) -> RpcError:
            seen.append(error)
            return RpcError("hidden")

        async with (
            asyncio.timeout(20),
            rpcshare.connect(url, reconnect=reconnect, on_send_error=hidden) as api,
        ):
            assert await api.errorOf(failing) == ["Error", "hidden", None, {}]
        assert [str(error) for error in seen] == ["RangeError: secret"]
