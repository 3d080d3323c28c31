"""Ways for a test to wait for what it is about, and for no longer."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from rpcshare import ConnectionState, StateChange
from rpcshare.client import Reconnecting


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
        await asyncio.sleep(0.002)


def begun(awaitable: Awaitable[Any]) -> asyncio.Task[Any]:
    """Have ``awaitable`` awaited from now on."""

    async def wait() -> Any:
        return await awaitable

    return asyncio.create_task(wait())
