"""Waiting on the event loop: for a promise, a signal, a lock, or one's turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from rpcshare.rpc.event_loop import Future, Task, running_loop
from rpcshare.rpc.stub import path_of, reference_of
from rpcshare.rpc.trampoline import take_turn

if TYPE_CHECKING:
    from rpcshare.rpc.payload import Payload
    from rpcshare.rpc.stub import Promise

__all__ = ["Lock", "Signal", "finished", "turn", "until", "wait_for"]


class Signal:
    """As ``asyncio.Event``, without the memory that one takes while nobody waits for it."""

    __slots__ = ("_waiting", "is_set")

    def __init__(self, *, is_set: bool = False) -> None:
        self.is_set = is_set
        self._waiting: list[Future[None]] | None = None

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
            future: Future[None] = running_loop().create_future()
            if self._waiting is None:
                self._waiting = []
            self._waiting.append(future)
            await future


class Lock:
    """As ``asyncio.Lock``: held by one at a time, in the order in which they asked for it."""

    __slots__ = ("_is_held", "_waiting")

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: deque[Future[None]] = deque()

    async def __aenter__(self) -> None:
        if not self._is_held:
            self._is_held = True
            return
        future: Future[None] = running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except BaseException:
            if future in self._waiting:
                self._waiting.remove(future)
            else:
                self._pass_on()  # it was handed over just then
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._is_held = False


async def until(register: Callable[[Callable[[], None]], None]) -> None:
    """Wait until the callback is called that this gives to ``register``."""
    future: Future[None] = running_loop().create_future()

    def fire() -> None:
        if not future.done():
            future.set_result(None)

    register(fire)
    await future


async def finished(*tasks: Task) -> None:
    """Return when ``tasks`` are over, however they ended, and have told so."""
    for task in tasks:
        await until(lambda fire: _when_done(task, fire))  # noqa: B023 -- called at once


def _when_done(task: Task, callback: Callable[[], None]) -> None:
    task.add_done_callback(lambda _task: callback())


async def turn() -> None:
    """Return when it is this task's turn among those that have long work to do."""
    loop = running_loop()
    await until(lambda fire: take_turn(loop, fire))


async def wait_for(promise: Promise) -> object:
    """Return what ``promise`` settles to, with the values of promises within it in place.

    Raises:
        RpcError: it was rejected, or its session has ended.
    """
    future: Future[object] = running_loop().create_future()

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
