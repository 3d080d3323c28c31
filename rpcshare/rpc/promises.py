"""Promises: a reference to the result of a call under way, and to the error in the place of a result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from rpcshare.rpc.mypyc_compat import mypyc_attr
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.reference import Budget, Instructions, Observer, Owner, Path, Reference

__all__ = ["BrokenReference", "PendingReference"]

logger = logging.getLogger("rpcshare.rpc")


class BrokenReference(Reference):
    """An error in the place of what would have been there. Calling it yields it again."""

    __slots__ = ("error",)

    def __init__(self, owner: Owner, error: Exception) -> None:
        super().__init__(owner)
        self.error = error

    def drop(self) -> None:
        pass  # an error refers to nothing

    def call(self, path: Path, arguments: Payload) -> Reference:  # noqa: ARG002 -- broken at every path
        arguments.dispose()
        return self.retain()

    def get(self, path: Path) -> Reference:  # noqa: ARG002 -- broken at every path
        return self.retain()

    def map(
        self,
        path: Path,  # noqa: ARG002 -- broken at every path
        captures: list[Reference],
        instructions: Instructions,  # noqa: ARG002
        budget: Budget,  # noqa: ARG002
    ) -> Reference:
        for capture in captures:
            capture.release()
        return self.retain()

    def when_settled(self, observer: Observer) -> None:
        observer(self.error)

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        try:
            callback(self.error)
        except Exception:
            # Whoever has just learned that this is broken has others to tell.
            logger.exception("an on_broken callback failed")


@mypyc_attr(allow_interpreted_subclasses=True)
class PendingReference(Reference):
    """What a call under way will yield. What is asked of it before waits in order of arrival."""

    __slots__ = ("_observer", "_resolution", "_waiting")

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        # Never another of this class: that one is waited for instead.
        self._resolution: Reference | None = None
        # Who waits, in order: an observer, as a rule the only one, and whoever came later.
        self._observer: Observer | None = None
        self._waiting: list[_Waiting] | None = None

    @property
    def resolution(self) -> Reference | None:
        return self._resolution

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what it will be."""
        return self._observer is not None or self._waiting is not None

    @property
    def waiting(self) -> int:
        """How many wait for it, or have asked something of it."""
        return (self._observer is not None) + (0 if self._waiting is None else len(self._waiting))

    def settle(self, resolution: Reference) -> None:
        """Take over one hold on ``resolution`` and pass on to it whatever waited."""
        # What waited may settle in turn, in as long a chain as the peer cares to pipeline: longer than
        # Python's own stack is deep.
        if self._waiting is None and not isinstance(resolution, PendingReference):
            # As nearly always: there is one who waits to be told, or nobody yet.
            self._resolution = resolution
            observer, self._observer = self._observer, None
            if observer is not None:
                resolution.when_settled(observer)
            if self.refcount == 0:
                resolution.release()
            return
        stack: list[Iterator[_Settled]] = [self._settling(resolution)]
        while stack:
            settled = next(stack[-1], None)
            if settled is None:
                stack.pop()
            else:
                reference, its_resolution = settled
                stack.append(reference._settling(its_resolution))  # noqa: SLF001 -- another of this class

    def _settling(self, resolution: Reference) -> Iterator[_Settled]:
        """Settle, yielding each reference that settles because of it before the next is looked at."""
        if isinstance(resolution, PendingReference):
            settled = resolution._resolution  # noqa: SLF001 -- another of this class
            if settled is None:
                resolution._wait(lambda settled: (self, settled.retain()))  # noqa: SLF001
                resolution.release()
                return
            settled.retain()
            resolution.release()
            resolution = settled
        self._resolution = resolution
        observer, self._observer = self._observer, None
        waiting, self._waiting = self._waiting, None
        if observer is not None:
            resolution.when_settled(observer)
        for action in waiting or ():
            settled_in_turn = action(resolution)
            if settled_in_turn is not None:
                yield settled_in_turn
        if self.refcount == 0:
            resolution.release()

    def _wait(self, action: _Waiting) -> None:
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(action)

    def drop(self) -> None:
        # Before the call has ended nothing is let go of: what waits here was promised an outcome.
        if self._resolution is not None:
            self._resolution.release()

    def call(self, path: Path, arguments: Payload) -> Reference:
        if self._resolution is not None:
            return self._resolution.call(path, arguments)
        arguments.own()
        result = PendingReference(self.owner)
        self._wait(lambda resolution: (result, resolution.call(path, arguments)))
        return result

    def get(self, path: Path) -> Reference:
        if not path:
            return self.retain()
        if self._resolution is not None:
            return self._resolution.get(path)
        result = PendingReference(self.owner)
        self._wait(lambda resolution: (result, resolution.get(path)))
        return result

    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        if self._resolution is not None:
            return self._resolution.map(path, captures, instructions, budget)
        result = PendingReference(self.owner)
        self._wait(lambda resolution: (result, resolution.map(path, captures, instructions, budget)))
        return result

    def when_settled(self, observer: Observer) -> None:
        if self._resolution is not None:
            self._resolution.when_settled(observer)
        elif self._observer is None and self._waiting is None:
            self._observer = observer
        else:
            self._wait(lambda resolution: resolution.when_settled(observer))

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        if self._resolution is not None:
            self._resolution.on_broken(callback)
        else:
            self._wait(lambda resolution: resolution.on_broken(callback))


_Settled = tuple[PendingReference, Reference]
_Waiting = Callable[[Reference], _Settled | None]
