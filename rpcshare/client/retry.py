"""Which calls of the main target are sent again, and how it outlives its sessions.

A call that is made while there is no session waits for the next. When a session ends before the answer, what
is safe to repeat is sent again. Any other call is sent once, and its result is the session's own: whatever it
leads to breaks with that session.
"""

from __future__ import annotations

from collections.abc import Callable

from rpcshare.client.call_queue import CallQueue, QueuedCall, on_this_session
from rpcshare.client.resubscribe import ResumedSubscription
from rpcshare.rpc import RpcError
from rpcshare.rpc.local_references import observe_stub
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.promises import BrokenReference
from rpcshare.rpc.reference import Budget, Instructions, Observer, Path, Reference

__all__ = ["MainReference"]

# What may be carried out twice: it reads, is idempotent by item, or goes on where it was.
# fmt: off
RETRIED = frozenset({
    "createShare", "syncShare", "updateShare", "createViewToken", "unlockShare", "getShare",
    "getShareMetadata", "listShares", "searchShares", "whoami", "subscribe",
})
# fmt: on


class MainReference(Reference):
    """The main target of whichever session there is. It does not break before there can be none."""

    __slots__ = ("_queue",)

    def __init__(self, queue: CallQueue) -> None:
        super().__init__(queue)
        self._queue = queue

    def drop(self) -> None:
        """A connection lasts as long as its block, whoever refers to it."""

    def call(self, path: Path, arguments: Payload) -> Reference:
        """Call a method of the next session, if there is none now."""
        try:
            arguments.own()
        except RpcError as exc:
            return BrokenReference(self.owner, exc)
        if len(path) != 1 or path[0] not in RETRIED:
            return self._once(lambda main: main.call(path, on_this_session(arguments)), arguments.dispose)
        values = arguments.value
        if path == ("subscribe",) and isinstance(values, list) and ResumedSubscription.fits(values):
            return self._queue.add(ResumedSubscription(self._queue, arguments, values))

        def ask(main: Reference) -> Reference:
            return main.call(path, on_this_session(Payload.copy_of(self._queue, arguments.value)))

        return self._queue.add(QueuedCall(self._queue, ask, arguments.dispose, is_retried=True))

    def get(self, path: Path) -> Reference:
        """Read a property of the next session's main target, if there is no session now."""
        return self._once(lambda main: main.get(path), lambda: None) if path else self.retain()

    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        """Apply a function to a property of the next session's main target, if there is no session now."""

        def release_captures() -> None:
            for capture in captures:
                capture.release()

        return self._once(lambda main: main.map(path, captures, instructions, budget), release_captures)

    def _once(self, ask: Callable[[Reference], Reference], let_go: Callable[[], None]) -> Reference:
        return self._queue.add(QueuedCall(self._queue, ask, let_go))

    def when_settled(self, observer: Observer) -> None:
        """Hand ``observer`` a stub: this is no promise."""
        observe_stub(self, observer)

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        """Have ``callback`` called when there will be no other session."""
        self._queue.lifetime.on_broken(callback)
