"""The event loop that sessions run on: asyncio's own, or trio's behind the same few methods.

A session asks little of it, but that for each call, so on asyncio nothing stands in between. What is asked
for once a connection (timeouts, cancellation, threads) is anyio's.

The tasks of a session belong to no task group, so that a connection may be entered in one task and left in
another, as by a fixture of a test. Each of them says itself if it fails.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from rpcshare.rpc.trio_loop import TrioTask

__all__ = ["EventLoop", "Future", "Task", "current_task", "is_trio", "running_loop"]

T = TypeVar("T")


class Task(Protocol):
    """A coroutine that runs beside others (``asyncio.Task``)."""

    def done(self) -> bool:
        """Whether it is over."""
        ...

    def cancelled(self) -> bool:
        """Whether it ended because of :meth:`cancel`."""
        ...

    def result(self) -> None:
        """Raise what it has raised, if it is over."""
        ...

    def cancel(self) -> object:
        """Have it end at what it waits for."""
        ...

    def add_done_callback(self, callback: Callable[[Any], object], /) -> object:
        """Have ``callback`` called with the task when it is over."""
        ...


class Future(Protocol[T]):
    """What a task waits for, set once (``asyncio.Future``)."""

    def done(self) -> bool:
        """Whether it is set, or nobody waits for it any longer."""
        ...

    def set_result(self, result: T, /) -> None:
        """Have whoever waits get ``result``."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """Have ``exception`` raised to whoever waits."""
        ...

    def __await__(self) -> Generator[Any, None, T]: ...


class EventLoop(Protocol):
    """What runs tasks and callbacks (``asyncio.AbstractEventLoop``)."""

    def create_task(self, work: Coroutine[Any, Any, None], /) -> Task:
        """Have ``work`` done. Tasks begin in the order in which they were made."""
        ...

    def create_future(self) -> Future[Any]:
        """Return what a task can wait for."""
        ...

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Have ``callback`` called after all those before it."""
        ...

    def call_soon_threadsafe(self, callback: Callable[[], object], /) -> object:
        """Do the same from any thread."""
        ...

    def is_closed(self) -> bool:
        """Whether nothing will run any longer."""
        ...


def running_loop() -> EventLoop:
    """Return the event loop of this thread.

    Raises:
        RuntimeError: there is none.
    """
    if "trio" in sys.modules and is_trio():  # the first alone decides for most, and costs no call
        from rpcshare.rpc.trio_loop import running_trio_loop  # noqa: PLC0415 -- trio need not be installed

        return running_trio_loop()
    return asyncio.get_running_loop()


def current_task() -> Task | None:
    """Return the task of :meth:`EventLoop.create_task` that this is called from, if it is one."""
    if is_trio():
        from rpcshare.rpc.trio_loop import running_trio_loop  # noqa: PLC0415 -- likewise

        task: TrioTask | None = running_trio_loop().current_task()
        return task
    return asyncio.current_task()


def is_trio() -> bool:
    """Whether trio runs what asks, and not asyncio."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()  # one may be the guest of an asyncio loop
