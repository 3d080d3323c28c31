"""Long work on the event loop, in time slices, so that everything else goes on meanwhile.

Work in another thread shares the interpreter's lock with the event loop, and nobody would be helped by more
than one thread of it. Here the pieces of work of all callers take turns: in one iteration of the event loop
there is at most one slice, however many callers there are.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["SLICE", "LongWork"]

T = TypeVar("T")

SLICE = 0.005
"""How long, in seconds, work goes on before it lets others go on."""

# Whose turn it is, for each event loop.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


class LongWork:
    """One piece of work, as a context, in which nothing is awaited but :meth:`pause` and :meth:`aside`.

    For example::

        async with LongWork() as work:
            for item in items:
                process(item)
                await work.pause()
    """

    __slots__ = ("_has_turn", "_turn", "_until")

    _turn: asyncio.Lock
    _until: float

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        turn = _turns.get(loop)
        if turn is None:
            turn = _turns[loop] = asyncio.Lock()
        self._turn = turn
        await self._begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._has_turn:
            self._turn.release()

    async def pause(self) -> None:
        """Let the event loop and other work go on, if this has had its time. Cheap if it has not."""
        if monotonic() < self._until:
            return
        self._has_turn = False  # as it stays if the task is cancelled here
        self._turn.release()
        await asyncio.sleep(0)
        await self._begin()

    async def aside(self, function: Callable[[], T]) -> T:
        """Return what ``function`` does, run in a thread: for a step that is long and cannot be cut."""
        self._has_turn = False
        self._turn.release()
        result = await asyncio.to_thread(function)
        await self._begin()
        return result

    async def _begin(self) -> None:
        await self._turn.acquire()
        self._has_turn = True
        self._until = monotonic() + SLICE
