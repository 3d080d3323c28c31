"""The calls to a server while sessions with it come and go."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

import anyio

from rpcshare.client.outcome import Operation, Outcome
from rpcshare.rpc import EncodeError, RpcError, Session, SessionClosedError
from rpcshare.rpc.event_loop import Task
from rpcshare.rpc.event_loop_owner import EventLoopOwner
from rpcshare.rpc.local_references import LocalReference
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.promises import BrokenReference
from rpcshare.rpc.reference import Budget, Instructions, Path, Reference, Releasable
from rpcshare.rpc.stub import reference_of

__all__ = ["CallQueue", "tell_broken"]

logger = logging.getLogger("rpcshare.client")

# How many calls may wait for their answers. A server bounds them (PROTOCOL.md, "Limits"), and many more
# can have gathered while there was no session.
WINDOW = 256


# How many sessions in a row may end with the same call the first to wait for its answer. It may well be what
# ends them: a server that cannot cope with what it is sent does not always get to say so. From the second
# time on, nothing is sent with it that could be the culprit in its place.
PATIENCE = 5


class CallQueue(EventLoopOwner):
    """The calls that wait for a session or for their answers, and the owner of the references to both."""

    def __init__(self) -> None:
        super().__init__()
        # Why nothing is asked any longer; None as long as something may be.
        self.closed: SessionClosedError | None = None
        # The session that there is.
        self._session: Session | None = None
        # In the order in which they are sent, again or for the first time.
        self._waiting: deque[Operation] = deque()
        self._is_sending = False
        # Sent, not answered, and to be sent again should the session end.
        self._sent: dict[Operation, None] = {}
        # The call that has waited longest when the last session ended, and how many ended so.
        self._stuck: Operation | None = None
        self._times_stuck = 0
        # Answered, and to be sent again all the same: what a subscription is.
        self._standing: dict[Operation, None] = {}
        # Those that are going to be sent again, but not yet.
        self._delayed: dict[Operation, Task] = {}

        self._closed_callbacks: list[Callable[[Exception], None]] = []
        self._abandoned: deque[Releasable] = deque()
        self._thread = threading.get_ident()
        # Whether what is abandoned is about to be released.
        self._scheduled = False

    # As sessions come and go.

    def begin_session(self, session: Session) -> None:
        """Ask everything of the main target of ``session`` from here on."""
        self._session = session
        self._send_waiting()

    def end_session(self) -> None:
        """Keep everything for the next session. The one that was is over, and its calls have failed."""
        session, self._session = self._session, None
        oldest = next(iter(self._sent), None)
        if oldest is None or oldest is not self._stuck:
            self._stuck = oldest
            self._times_stuck = 0
        self._times_stuck += 1
        again: list[Operation] = [*self._standing, *self._sent]
        self._standing.clear()
        self._sent.clear()
        for call in again:
            call.forget_attempt()
        self._waiting.extendleft(reversed(again))
        if oldest is not None and session is not None and self._times_stuck >= PATIENCE:
            self._stuck = None
            self._times_stuck = 0
            self._waiting.remove(oldest)
            oldest.fail(session.closed or SessionClosedError("the session has ended"))

    def close(self, error: SessionClosedError) -> None:
        """Fail everything: there will be no other session."""
        self.closed = error
        self.end_session()
        delayed, self._delayed = self._delayed, {}
        for operation, task in delayed.items():
            task.cancel()
            self._waiting.append(operation)
        while self._waiting:
            self._waiting.popleft().fail(error)
        callbacks, self._closed_callbacks = self._closed_callbacks, []
        tell_broken(callbacks, error)

    def on_closed(self, callback: Callable[[Exception], None]) -> None:
        """Have ``callback`` called when there will be no other session; at once if that is so already."""
        if self.closed is not None:
            callback(self.closed)
        else:
            self._closed_callbacks.append(callback)

    # As operations use it.

    def add(self, operation: Operation) -> None:
        """Have ``operation`` issued after those before it."""
        if self.closed is not None:
            operation.fail(self.closed)
            return
        self._waiting.append(operation)
        self._send_waiting()

    def sent(self, call: Operation) -> None:
        """Note that ``call`` waits for its answer."""
        self._sent[call] = None

    def answered(self, call: Operation, *, stands: bool = False) -> None:
        """Note that ``call`` does not; one that ``stands`` is sent again on the next session."""
        self._sent.pop(call, None)
        if call is self._stuck:
            self._stuck = None
            self._times_stuck = 0
        if stands:
            self._standing[call] = None
        self._send_waiting()

    def remove(self, operation: Operation) -> None:
        """Forget ``operation``, wherever it is."""
        task = self._delayed.pop(operation, None)
        if task is not None:
            task.cancel()
        if operation in self._waiting:
            self._waiting.remove(operation)
        self._standing.pop(operation, None)
        self.answered(operation)

    def add_later(self, delay: float, operation: Operation) -> None:
        """Have ``operation`` issued in ``delay`` seconds."""

        async def add() -> None:
            await anyio.sleep(delay)
            del self._delayed[operation]
            self.add(operation)

        self._delayed[operation] = self._loop.create_task(add())

    def _send_waiting(self) -> None:
        if self._is_sending:
            return  # by what a call that was sent has brought about at once
        self._is_sending = True
        try:
            while self._waiting and len(self._sent) < (WINDOW if self._times_stuck < 2 else 1):
                if self._session is None or self._session.closed is not None:
                    return
                self._waiting.popleft().issue(reference_of(self._session.remote_main))
        finally:
            self._is_sending = False

    # As an owner of references (rpcshare.rpc.reference.Owner).

    def _reference_to(self, target: object) -> LocalReference:
        return _Kept(self, target)

    def invoke(self, reference: Reference, path: Path, arguments: tuple[object, ...]) -> Reference:
        """Call what ``path`` of ``reference`` leads to, with arguments that the application keeps.

        Raises:
            EncodeError: an argument has no form on the wire, and that is known already.
        """
        result = reference.call(path, Payload.lend(self, arguments))
        settled = result.resolution if isinstance(result, Outcome) else result
        if isinstance(settled, BrokenReference) and isinstance(settled.error, EncodeError):
            raise settled.error
        return result

    def apply_map(
        self,
        value: object,  # noqa: ARG002 -- none of them is looked at
        captures: list[Reference],
        instructions: Instructions,  # noqa: ARG002
        budget: Budget,  # noqa: ARG002
        *,
        fixed: bool,  # noqa: ARG002
    ) -> Reference:
        """Refuse: values are a session's, and mapped by it."""
        for capture in captures:
            capture.release()
        return BrokenReference(self, RpcError("there is nothing here to apply a function to"))

    def abandon(self, reference: Releasable) -> None:
        """Release ``reference`` soon, on the event loop's own thread."""
        self._abandoned.append(reference)
        if self._scheduled or self._loop.is_closed():
            return
        self._scheduled = True
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._release_abandoned)
        else:
            self._loop.call_soon_threadsafe(self._release_abandoned)

    def _release_abandoned(self) -> None:
        self._scheduled = False
        while self._abandoned:
            self._abandoned.popleft().release()


class _Kept(LocalReference):
    """A target or a function in arguments that wait for a session, which takes a reference of its own."""

    __slots__ = ("_is_passed_on",)

    def __init__(self, owner: CallQueue, target: object) -> None:
        super().__init__(owner, target)
        self._is_passed_on = False

    def passed_on(self) -> None:
        """Leave it to the session to dispose of the target."""
        self._is_passed_on = True

    def drop(self) -> None:
        if self._is_passed_on:
            self.owner.forget(self.target)
        else:
            super().drop()  # there was no session for it


def tell_broken(callbacks: list[Callable[[Exception], None]], error: Exception) -> None:
    """Call each of ``callbacks``, whatever the others do."""
    for callback in callbacks:
        try:
            callback(error)
        except Exception:
            # Whoever has just learned that this is broken has others to tell.
            logger.exception("an on_broken callback failed")
