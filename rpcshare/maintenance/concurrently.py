"""Doing the same to many things, a few at a time."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeVar

__all__ = ["for_each"]

T = TypeVar("T")


async def for_each(things: AsyncIterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Call ``work`` with each of ``things``, and have at most ``at_once`` calls under way.

    The first exception of a call is raised, once the others under way have been cancelled.
    """
    running: set[asyncio.Task[None]] = set()

    async def run(thing: T) -> None:
        await work(thing)

    async def wait_for_one() -> None:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        running.difference_update(done)
        failures = [task.exception() for task in done]
        for failure in failures:
            if failure is not None:
                raise failure

    try:
        async for thing in things:
            if len(running) == at_once:
                await wait_for_one()
            running.add(asyncio.create_task(run(thing)))
        while running:
            await wait_for_one()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
