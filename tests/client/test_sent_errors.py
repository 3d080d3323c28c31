"""What a client sends to a server for the errors of its own functions."""

from collections.abc import Iterator

import pytest
from peers import served

import rpcshare
from rpcshare.rpc import RpcError, RpcTarget, Stub, rpc_method
from support.waiting import limited

pytestmark = pytest.mark.on_trio_too


class Caller(RpcTarget):
    @rpc_method("errorOf(func)")
    async def error_of(self, func: Stub) -> list[object]:
        try:
            await func()
        except RpcError as exc:
            return [exc.name, exc.message, exc.stack, exc.properties]
        raise AssertionError


@pytest.fixture
def url() -> Iterator[str]:
    """A server that says what came of a function that was passed to it."""
    with served(Caller()) as url:
        yield url


def failing() -> None:
    raise RpcError("secret", name="RangeError", stack="a frame", properties={"more": 1})


@pytest.mark.parametrize("reconnect", [False, True])
class TestTheErrorOfACallback:
    async def test_is_sent_without_its_stack(self, url: str, reconnect: bool) -> None:
        async with limited(20), rpcshare.connect(url, reconnect=reconnect) as api:
            assert await api.errorOf(failing) == ["RangeError", "secret", None, {"more": 1}]

    async def test_is_sent_with_its_stack_if_on_send_error_returns_it(
        self, url: str, reconnect: bool
    ) -> None:
        connecting = rpcshare.connect(url, reconnect=reconnect, on_send_error=lambda error: error)
        async with limited(20), connecting as api:
            assert await api.errorOf(failing) == ["RangeError", "secret", "a frame", {"more": 1}]

    async def test_is_replaced_by_another_that_on_send_error_returns(self, url: str, reconnect: bool) -> None:
        seen: list[BaseException] = []

        def hidden(error: BaseException) -> RpcError:
            seen.append(error)
            return RpcError("hidden")

        async with (
            limited(20),
            rpcshare.connect(url, reconnect=reconnect, on_send_error=hidden) as api,
        ):
            assert await api.errorOf(failing) == ["Error", "hidden", None, {}]
        assert [str(error) for error in seen] == ["RangeError: secret"]
