"""How often a method is called, how that ends and how long it takes: in plain numbers, on the event loop."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Final

from rpcshare.rpc.members import BoundMethod, Function
from rpcshare.rpc.stub import Stub

__all__ = ["PLAIN", "CallCounts", "CountedMethods", "LimitedMethods"]

PLAIN: Final = frozenset({dict, list, str, int, float, bool, bytes, type(None)})
"""Types of results that are known at once to be no awaitables."""

_clock: Final[Callable[[], float]] = perf_counter
_place: Final[Callable[[Sequence[float], float], int]] = bisect_left


class CallCounts:
    """Of one method."""

    __slots__ = ("_bounds", "_on_end", "_outcome", "counts", "outcomes", "seconds")

    def __init__(
        self, bounds: Sequence[float], outcome: Callable[[BaseException], str], on_end: Callable[[str], None]
    ) -> None:
        self._bounds = bounds
        self._outcome = outcome
        self._on_end = on_end
        # How many ended so.
        self.outcomes: dict[str, int] = {}
        # How many took at most so long as each of the bounds, and longer than the one before.
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def ended(self, began_at: float) -> None:
        """Count a call that has succeeded."""
        self._count(began_at, "ok")

    def failed(self, began_at: float, error: BaseException) -> None:
        """Count one that has failed."""
        outcome = self._outcome(error)
        self._count(began_at, outcome)
        self._on_end(outcome)

    def _count(self, began_at: float, outcome: str) -> None:
        seconds = _clock() - began_at
        self.seconds += seconds
        self.counts[_place(self._bounds, seconds)] += 1
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


class CountedMethods:
    """Counts the calls of exported methods, by name.

    Args:
        bounds: in seconds, ascending: how many calls take at most so long is counted for each.
        outcome: names the outcome that an exception is.
        on_failure: called with it.
    """

    def __init__(
        self,
        bounds: Sequence[float],
        outcome: Callable[[BaseException], str],
        on_failure: Callable[[str], None],
    ) -> None:
        self._bounds = bounds
        self._outcome = outcome
        self._on_failure = on_failure
        self.by_name: dict[str, CallCounts] = {}

    def around_call(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return ``function``, which a peer calls, counted if it is an exported method."""
        if not isinstance(function, BoundMethod):
            return function
        name = function.method.name
        counts = self.by_name.get(name)
        if counts is None:
            counts = self.by_name[name] = CallCounts(self._bounds, self._outcome, self._on_failure)
        return _Counted(counts, function)


class LimitedMethods:
    """Has calls of exported methods counted against a limit before they begin.

    Args:
        around: what else is put around a call.
        payer_of: returns who pays for a call of a target; None: nobody.
        count: called with the payer. What it raises is what the call fails with.
    """

    def __init__(
        self,
        around: Callable[[Callable[..., object]], Callable[..., object]],
        payer_of: Callable[[object], object],
        count: Callable[[object], object],
    ) -> None:
        self._around = around
        self._payer_of = payer_of
        self._count = count

    def around_call(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return ``function``, which a peer calls, with all that is put around it."""
        inner = self._around(function)
        if not isinstance(function, BoundMethod):
            return inner
        payer = self._payer_of(function.target)
        return inner if payer is None else _Limited(self._count, payer, inner)


class _Limited(Function):
    __slots__ = ("_count", "_inner", "_payer")

    def __init__(
        self, count: Callable[[object], object], payer: object, inner: Callable[..., object]
    ) -> None:
        self._count = count
        self._payer = payer
        self._inner = inner

    def invoke(self, arguments: list[object]) -> object:
        """Count a call, and make it."""
        self._count(self._payer)
        inner = self._inner
        return inner.invoke(arguments) if isinstance(inner, Function) else inner(*arguments)


class _Counted(Function):
    """A method whose calls are counted."""

    __slots__ = ("_counts", "_method")

    def __init__(self, counts: CallCounts, method: BoundMethod) -> None:
        self._counts = counts
        self._method = method

    def invoke(self, arguments: list[object]) -> object:
        """Call it."""
        began_at = _clock()
        try:
            result = self._method.invoke(arguments)
        except Exception as exc:
            self._counts.failed(began_at, exc)
            raise
        if type(result) not in PLAIN and isinstance(result, Awaitable) and not isinstance(result, Stub):
            return _awaited(self._counts, began_at, result)
        self._counts.ended(began_at)
        return result


async def _awaited(counts: CallCounts, began_at: float, result: Awaitable[object]) -> object:
    try:
        value = await result
    except BaseException as exc:
        counts.failed(began_at, exc)
        raise
    counts.ended(began_at)
    return value
