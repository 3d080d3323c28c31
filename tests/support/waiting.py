"""Ways for a test to wait for what it is about, and for no longer; on asyncio and on trio."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from rpcshare import ConnectionState, StateChange
from rpcshare.client import Reconnecting
from rpcshare.rpc.event_loop import Future, running_loop


async def reached(connection: Reconnecting, state: ConnectionState) -> StateChange:
    """Return how ``connection`` came to ``state``, once it has."""
    async with aclosing(connection.changes()) as changes:
        async for change in changes:
            if change.state is state:
                return change
    raise AssertionError(f"closed before it was {state}")


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds; what runs into the test's time limit never did."""
    while not condition():  # noqa: ASYNC110 -- it may be of anything
        await anyio.sleep(0.002)


def begun(awaitable: Awaitable[Any]) -> Future[Any]:
    """Have ``awaitable`` awaited from now on, in the order of these calls."""
    future: Future[Any] = running_loop().create_future()

    async def wait() -> None:
        try:
            result = await awaitable
        except Exception as exc:  # noqa: BLE001 -- for who waits
            future.set_exception(exc)
        else:
            future.set_result(result)

    running_loop().create_task(wait())
    return future


async def gathered(awaitables: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all at once; return what each yielded or raised."""

    async def outcome(awaitable: Awaitable[Any]) -> Any:
        try:
            return await awaitable
        except Exception as exc:  # noqa: BLE001 -- likewise
            return exc

    return [await each for each in [begun(outcome(awaitable)) for awaitable in awaitables]]


async def others() -> None:
    """Let the others run that can."""
    for _ in range(5):
        await checkpoint()


@asynccontextmanager
async def limited(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError if the block takes longer."""
    with anyio.fail_after(seconds):
        yield
