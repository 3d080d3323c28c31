"""Waiting for a promise on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from rpcshare.rpc.stub import path_of, reference_of

if TYPE_CHECKING:
    from rpcshare.rpc.payload import Payload
    from rpcshare.rpc.stub import Promise

__all__ = ["until", "wait_for"]


async def until(register: Callable[[Callable[[], None]], None]) -> None:
    """Wait until the callback is called that this gives to ``register``."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fire() -> None:
        if not future.done():
            future.set_result(None)

    register(fire)
    await future


async def wait_for(promise: Promise) -> object:
    """Return what ``promise`` settles to, with the values of promises within it in place.

    Raises:
        RpcError: it was rejected, or its session has ended.
    """
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def settled(outcome: Payload | Exception) -> None:
        if isinstance(outcome, Exception):
            fail(outcome)
        else:
            outcome.deliver(lambda error: finish(outcome, error))

    def finish(payload: Payload, error: Exception | None) -> None:
        if error is not None:
            fail(error)
        elif not future.done():
            future.set_result(payload.hand_over())

    def fail(error: Exception) -> None:
        if not future.done():
            # One error may reach many who wait, and must not gather the frames of all of them.
            future.set_exception(error.with_traceback(None))

    reference = reference_of(promise).get(path_of(promise))
    try:
        reference.when_settled(settled)
        return await future
    finally:
        reference.release()
