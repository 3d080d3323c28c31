"""What is left of a session that has done much, and of one that has broken."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest
from links import memory_link
from wire import FRESH

from rpcshare.rpc import (
    Connection,
    Promise,
    ReadableStream,
    RpcError,
    RpcTarget,
    Stub,
    WritableStream,
    memory_pair,
    rpc_method,
    stub,
)
from support.waiting import eventually


class Counter(RpcTarget):
    disposals = 0

    def __init__(self, value: int = 0) -> None:
        self.value = value

    @rpc_method("increment()")
    def increment(self) -> int:
        self.value += 1
        return self.value

    def dispose(self) -> None:
        Counter.disposals += 1


class Busy(RpcTarget):
    """Does a little of everything."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    @rpc_method("make(value)")
    def make(self, value: int) -> Counter:
        return Counter(value)

    @rpc_method("call(callback, value)")
    async def call(self, callback: Stub, value: object) -> object:
        return await callback(value)

    @rpc_method("echo(value)")
    def echo(self, value: object) -> object:
        return value

    @rpc_method("fail(counter)")
    def fail(self, counter: object) -> None:
        raise RpcError("no", properties={"made": Counter()})

    @rpc_method("numbers(count)")
    async def numbers(self, count: int) -> AsyncIterator[object]:
        for number in range(count):
            yield Counter(number)

    @rpc_method("sum(stream)")
    async def sum(self, stream: ReadableStream) -> int:
        return sum([number async for number in stream])  # type: ignore[misc]  # the test sends numbers

    @rpc_method("fill(stream)")
    async def fill(self, stream: WritableStream) -> None:
        async with stream:
            await stream.write(1)
            await stream.write(2)

    @rpc_method("wait(value)")
    async def wait(self, value: object) -> object:
        await self.waiting.wait()
        return value

    @rpc_method("read(stream)")
    async def read(self, stream: ReadableStream) -> None:
        async for _ in stream:
            pass


async def use(main: Stub, number: int) -> None:
    """Make ten calls, each of another kind."""
    with main.make(number) as pipelined:
        assert await pipelined.increment() == number + 1
    counter = await main.make(number)
    assert await main.echo(counter.increment()) == number + 1
    assert await main.call(lambda value: [value], "x") == ["x"]
    with pytest.raises(RpcError, match="no"):
        await main.fail(Counter())
    async for each in await main.numbers(2):
        each.dispose()
    assert await main.sum(ReadableStream([1, 2, number])) == number + 3
    written: list[object] = []
    await main.fill(WritableStream.calling(written.append))
    assert written == [1, 2]
    echoed = await main.echo({"stub": counter, "stream": ReadableStream([number])})
    assert [value async for value in echoed["stream"]] == [number]
    assert await main.echo([1, 2]).map(lambda value: [value, counter]) is not None
    echoed["stub"].dispose()
    counter.dispose()


@pytest.mark.slow
async def test_ten_thousand_calls_leave_the_tables_as_they_were() -> None:
    async with memory_link() as (one, other), Connection(other, Busy()) as server, Connection(one) as client:
        for round_ in range(50):
            async with asyncio.TaskGroup() as tasks:
                for number in range(20):
                    tasks.create_task(use(client.remote_main, 20 * round_ + number))
        gc.collect()
        await eventually(lambda: client.session.stats() == FRESH and server.session.stats() == FRESH)
        assert client.session._near == {}
        assert len(server.session._near) == 1
        assert server.session.exports._unread == 0


class Remains:
    """What there was of two sessions, as long as it is reachable."""

    def __init__(self) -> None:
        self.references: list[weakref.ref[object]] = []

    def note(self, *parts: object) -> None:
        self.references += map(weakref.ref, parts)

    def reachable(self) -> list[object]:
        gc.collect()
        return [part for reference in self.references if (part := reference()) is not None]


@pytest.mark.parametrize("how", ["lost", "closed", "aborted"])
async def test_nothing_of_a_session_is_reachable_once_it_has_broken(how: str) -> None:
    remains = Remains()
    Counter.disposals = 0

    async def in_the_middle_of_everything() -> None:
        one, other = memory_pair()
        busy, callback = Busy(), Counter()
        server, client = Connection(other, busy, call_grace=0), Connection(one, call_grace=0)
        async with server, client:
            main = client.remote_main
            counter = await main.make(1)
            numbers = await main.numbers(100_000)
            await anext(numbers)
            promises: list[Promise] = [
                main.wait(callback),
                main.wait(counter),
                main.read(endless()),
                main.fill(WritableStream.calling(never)),
                main.wait([1]).map(lambda value: counter.increment(value)),  # noqa: PLW0108 -- recorded
                main.echo(stub(Counter())),
                main.wait(5).deeper(main.wait(6)),
            ]
            waiting = [asyncio.ensure_future(promise) for promise in promises]
            await asyncio.sleep(0.01)
            remains.note(server, client, busy, callback, counter, numbers, *promises)
            # Compiled, a session takes no weak references; what it alone keeps is gone when it is.
            remains.note(server.session.remote_main, main)
            if how == "lost":
                await one.close(1006, "lost")
            elif how == "closed":
                await client.close()
            else:
                await one.send(b'["pull", 12345]', text=True)
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert sum(isinstance(outcome, RpcError) for outcome in outcomes) >= 6

    await in_the_middle_of_everything()
    await asyncio.sleep(0.01)  # for the tasks that have just been cancelled
    assert remains.reachable() == []
    assert Counter.disposals >= 2


async def endless() -> AsyncIterator[object]:
    while True:
        yield Counter()
        await asyncio.sleep(0)


async def never(_value: object) -> None:
    await asyncio.Event().wait()
