"""Who takes streams and gives them, and what they are made of."""

from collections.abc import AsyncIterator

import anyio

from rpcshare.rpc import (
    ReadableStream,
    RpcTarget,
    WritableStream,
    rpc_method,
)
from support.waiting import eventually

__all__ = ["Recorded", "Tap", "counting", "endless"]


class Taken:
    """What a tap has been given."""

    def __init__(self) -> None:
        self.values: list[object] = []

    async def get(self) -> object:
        await eventually(lambda: bool(self.values))
        return self.values.pop(0)


class Tap(RpcTarget):
    """Takes streams and gives them."""

    def __init__(self, gift: object = None) -> None:
        self.gift = gift
        self.taken = Taken()
        self.hold = anyio.Event()

    @rpc_method("take(value)")
    async def take(self, value: object) -> None:
        self.taken.values.append(value)
        await self.hold.wait()

    @rpc_method("readAll(stream)")
    async def read_all(self, readable: ReadableStream) -> list[object]:
        return [value async for value in readable]

    @rpc_method("ignore(value)")
    def ignore(self, value: object) -> None: ...

    @rpc_method("give()")
    def give(self) -> object:
        return self.gift

    @rpc_method("echo(value)")
    def echo(self, value: object) -> object:
        return value

    @rpc_method("fill(stream, count)")
    async def fill(self, writable: WritableStream, count: int) -> None:
        async with writable:
            for number in range(count):
                await writable.write(number)


class Recorded:
    """A sink that notes what is done to it."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.fails: Exception | None = None

    async def write(self, value: object) -> None:
        if self.fails is not None:
            raise self.fails
        self.log.append(value)

    async def close(self) -> None:
        self.log.append("closed")

    async def abort(self, reason: Exception) -> None:
        self.log.append(f"aborted: {reason}")


async def counting(*values: object, closed: list[str]) -> AsyncIterator[object]:
    try:
        for value in values:
            yield value
    finally:
        closed.append("closed")


async def endless(closed: list[str]) -> AsyncIterator[object]:
    """Yield one value, and then wait for what never comes."""
    try:
        yield "first"
        await anyio.sleep_forever()
    finally:
        closed.append("closed")
