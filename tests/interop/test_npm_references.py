"""References that come back and are passed on: our client, and a server made with npm's capnweb.

tests/node/interop_client.mjs has the same for npm's client and a server of ours.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

import rpcshare
from rpcshare.rpc import RpcTarget, Stub, rpc_method, rpc_property

pytestmark = pytest.mark.node


class Mine(RpcTarget):
    """A target of ours that the server sends back."""

    def __init__(self) -> None:
        self.count = 0
        self.disposed = asyncio.Event()

    @rpc_method("take(f)")
    async def take(self, f: Stub) -> object:
        return await f(1)

    @rpc_method("increment(n?)")
    def increment(self, n: int = 1) -> int:
        self.count += n
        return self.count

    @rpc_property("value")
    def value(self) -> int:
        return self.count

    def dispose(self) -> None:
        self.disposed.set()


@pytest.fixture
async def api(upstream: str) -> AsyncIterator[Stub]:
    async with asyncio.timeout(30), rpcshare.connect(f"{upstream}/rpc") as api:
        yield api


COMING_BACK: dict[str, Callable[[Stub, Mine], Stub]] = {
    "itself": lambda api, mine: api.echo(mine),
    "deep in a value": lambda api, mine: api.echo({"deep": {"within": mine}}).deep.within,
    "later": lambda api, mine: api.later({"deep": [mine]}).deep[0],
    "twice": lambda api, mine: api.echo(api.echo([mine])[0]),
}


@pytest.mark.parametrize("back", COMING_BACK.values(), ids=COMING_BACK.keys())
class TestATargetOfOursThatComesBack:
    async def test_is_called_with_a_callback(self, api: Stub, back: Callable[[Stub, Mine], Stub]) -> None:
        assert await back(api, Mine()).take(lambda x: x + 1) == 2
        assert await api.square(3) == 9

    async def test_is_called_with_a_stub_of_theirs(
        self, api: Stub, back: Callable[[Stub, Mine], Stub]
    ) -> None:
        assert await back(api, Mine()).take(api.square) == 1
        assert await api.square(3) == 9

    async def test_is_passed_on(self, api: Stub, back: Callable[[Stub, Mine], Stub]) -> None:
        assert await api.incrementCounter(back(api, Mine()), 4) == 4
        assert await api.square(3) == 9

    async def test_is_captured_by_a_mapper_function(
        self, api: Stub, back: Callable[[Stub, Mine], Stub]
    ) -> None:
        mine, square = back(api, Mine()), api.square
        assert await api.list(3).map(lambda x: mine.take(square)) == [1, 1, 1]
        assert await api.square(3) == 9

    async def test_is_disposed_of_when_the_server_lets_go(
        self, api: Stub, back: Callable[[Stub, Mine], Stub]
    ) -> None:
        mine = Mine()
        with back(api, mine) as stub:
            assert await stub.increment() == 1
        del stub
        await mine.disposed.wait()
        assert await api.square(3) == 9


class TestAPropertyThatIsAStub:
    async def test_settles_before_and_after_the_result(self, api: Stub) -> None:
        pair = api.makePair(5)
        one = await pair.one
        assert await one.increment() == 6
        await pair
        two = await pair.deep.within.two
        assert await two.increment(2) == 8

    async def test_of_a_target_of_ours_settles(self, api: Stub) -> None:
        result = api.echo({"c": Mine()})
        mine = await result.c
        assert await mine.increment() == 1
        await result
        again = await result.c
        assert await again.increment() == 2

    async def test_is_passed_on(self, api: Stub) -> None:
        pair = api.makePair(5)
        assert await api.incrementCounter(pair.one) == 6
        await pair
        assert await api.incrementCounter(pair.one) == 7
        assert await api.incrementCounter(pair.deep.within.two, 2) == 8

    async def test_has_properties(self, api: Stub) -> None:
        pair = api.makePair(5)
        assert await pair.deep.within.two.value == 6
        await pair
        assert await pair.deep.within.two.value == 6


class TestAServerThatTakesTheFirstSubprotocol:
    """npm's ``ws`` does so by default, and capnweb speaks JSON whatever it is."""

    @pytest.mark.parametrize("reconnect", [False, True])
    async def test_is_spoken_to_in_json(self, upstream: str, reconnect: bool) -> None:
        async with rpcshare.connect(f"{upstream}/rpc", reconnect=reconnect) as api:
            assert await api.square(4) == 16
