"""Trio as the event loop of sessions."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, TypeVar

import trio

__all__ = ["TrioLoop", "TrioTask", "running_trio_loop"]

logger = logging.getLogger("rpcshare.rpc")

T = TypeVar("T")


class TrioLoop:
    """A run of trio, as an :class:`~rpcshare.rpc.event_loop.EventLoop`."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._running: dict[trio.lowlevel.Task, TrioTask] = {}
        # Set when the task that was made last has begun.
        self._last_begun = trio.Event()
        self._last_begun.set()

    def create_task(self, work: Coroutine[Any, Any, None], /) -> TrioTask:
        """Have ``work`` done. Trio runs tasks in any order, but these begin in the order of their making."""
        previous, self._last_begun = self._last_begun, trio.Event()
        task = TrioTask(work, self._running)
        try:
            trio.lowlevel.spawn_system_task(task.run, previous, self._last_begun, context=copy_context())
        except RuntimeError:
            work.close()  # the run is about to end
            raise
        return task

    def current_task(self) -> TrioTask | None:
        """Return the task of this loop that this is called from, if it is one."""
        return self._running.get(trio.lowlevel.current_task())

    def create_future(self) -> TrioFuture[Any]:
        """Return what a task can wait for."""
        return TrioFuture()

    def call_soon(self, callback: Callable[[], object], /) -> None:
        """Have ``callback`` called after all those before it."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(_call, callback)

    call_soon_threadsafe = call_soon

    def is_closed(self) -> bool:
        """Return False: what is to be called after the end of the run is not called."""
        return False


_loop: trio.lowlevel.RunVar[TrioLoop] = trio.lowlevel.RunVar("rpcshare_loop")


def running_trio_loop() -> TrioLoop:
    """Return the one of the run of trio that this is called from."""
    try:
        return _loop.get()
    except LookupError:
        loop = TrioLoop()
        _loop.set(loop)
        return loop


class TrioTask:
    """A system task of trio, as a :class:`~rpcshare.rpc.event_loop.Task`."""

    def __init__(self, work: Coroutine[Any, Any, None], running: dict[trio.lowlevel.Task, TrioTask]) -> None:
        self._work = work
        self._running = running
        self._scope = trio.CancelScope()
        self._callbacks: list[Callable[[Any], object]] = []
        self._is_done = False
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether it is over."""
        return self._is_done

    def cancelled(self) -> bool:
        """Whether it ended because of :meth:`cancel`."""
        return self._scope.cancelled_caught

    def result(self) -> None:
        """Raise what it has raised, if it is over."""
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Have it end at what it waits for."""
        self._scope.cancel()

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None:
        """Have ``callback`` called with the task when it is over."""
        if self._is_done:
            running_trio_loop().call_soon(partial(callback, self))
        else:
            self._callbacks.append(callback)

    async def run(self, previous: trio.Event, begun: trio.Event) -> None:
        """Do the work, after ``previous`` is set; nothing is raised, for that would end the whole run."""
        this = trio.lowlevel.current_task()
        self._running[this] = self
        has_begun = False
        try:
            with self._scope:
                if not previous.is_set():
                    await previous.wait()
                begun.set()
                has_begun = True
                await self._work
        except trio.Cancelled:
            raise  # the run is over
        except BaseException as exc:
            self._error = exc
            logger.exception("a task failed")
        finally:
            begun.set()
            if not has_begun:
                self._work.close()
            del self._running[this]
            self._is_done = True
            for callback in self._callbacks:
                _call(partial(callback, self))


class TrioFuture(Generic[T]):
    """As a :class:`~rpcshare.rpc.event_loop.Future`."""

    def __init__(self) -> None:
        self._is_set = trio.Event()
        self._result: T
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether it is set."""
        return self._is_set.is_set()

    def set_result(self, result: T, /) -> None:
        """Have whoever waits get ``result``."""
        self._result = result
        self._is_set.set()

    def set_exception(self, exception: BaseException, /) -> None:
        """Have ``exception`` raised to whoever waits."""
        self._error = exception
        self._is_set.set()

    def __await__(self) -> Generator[Any, None, T]:
        if not self._is_set.is_set():
            yield from self._is_set.wait().__await__()
        if self._error is not None:
            raise self._error
        return self._result


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        logger.exception("a callback failed")  # which trio would end the run for
