"""Waiting for a promise on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from rpcshare.rpc.stub import path_of, reference_of
from rpcshare.rpc.trampoline import take_turn

if TYPE_CHECKING:
    from rpcshare.rpc.payload import Payload
    from rpcshare.rpc.stub import Promise

__all__ = ["Signal", "turn", "until", "wait_for"]


class Signal:
    """As ``asyncio.Event``, without the memory that one takes while nobody waits for it."""

    __slots__ = ("_waiting", "is_set")

    def __init__(self, *, is_set: bool = False) -> None:
        self.is_set = is_set
        self._waiting: list[asyncio.Future[None]] | None = None

    def set(self) -> None:
        """Let go on who waits, and whoever will."""
        self.is_set = True
        waiting, self._waiting = self._waiting, None
        for future in waiting or ():
            if not future.done():
                future.set_result(None)

    def clear(self) -> None:
        """Let whoever waits from now on wait until the next :meth:`set`."""
        self.is_set = False

    async def wait(self) -> None:
        """Return when it is set."""
        if not self.is_set:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._waiting is None:
                self._waiting = []
            self._waiting.append(future)
            await future


async def until(register: Callable[[Callable[[], None]], None]) -> None:
    """Wait until the callback is called that this gives to ``register``."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fire() -> None:
        if not future.done():
            future.set_result(None)

    register(fire)
    await future


async def turn() -> None:
    """Return when it is this task's turn among those that have long work to do."""
    loop = asyncio.get_running_loop()
    await until(lambda fire: take_turn(loop, fire))


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
