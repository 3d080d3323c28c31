"""Waiting for a promise on the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rpcshare.rpc.stub import path_of, reference_of

if TYPE_CHECKING:
    from rpcshare.rpc.payload import Payload
    from rpcshare.rpc.stub import Promise

__all__ = ["wait_for"]


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
            future.set_exception(error)

    reference = reference_of(promise).get(path_of(promise))
    try:
        reference.when_settled(settled)
        return await future
    finally:
        reference.release()
