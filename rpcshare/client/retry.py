"""Calls of the main target that outlive the session on which they are made.

Between the application and the main target of the session of the moment stands
:class:`~rpcshare.client.call_queue.CallQueue`. It sends calls in the order in which they were made, and keeps
those that are made while there is no session. When a session ends before the answer, it sends again what it
has been told is safe (:class:`RepeatedCall`). Any other call is sent once, and its result is
the session's own: whatever it leads to breaks with that session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from rpcshare.client.call_queue import CallQueue
from rpcshare.client.outcome import Outcome, on_this_session
from rpcshare.rpc import ConnectionLostError, RpcError, Stub
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.promises import BrokenReference
from rpcshare.rpc.reference import Budget, Instructions, Observer, Path, Reference

__all__ = ["MainReference", "RepeatedCall", "Repetition"]

# Close codes (RFC 6455 section 7.4.1) of a peer that cannot cope with what it was sent; it would not a second
# time either.
_REFUSALS = frozenset({1002, 1003, 1007, 1009})


Repetition: TypeAlias = "Callable[[CallQueue, Path, Payload], RepeatedCall]"
"""Makes the operation for a call that may be sent again."""


class MainReference(Reference):
    """The main target of whichever session there is. It does not break before there can be none."""

    __slots__ = ("_calls", "_repeated")

    def __init__(self, calls: CallQueue, repeated: Mapping[str, Repetition]) -> None:
        super().__init__(calls)
        self._calls = calls
        self._repeated = repeated

    def drop(self) -> None:
        """A connection lasts as long as its block, whoever refers to it."""

    def call(self, path: Path, arguments: Payload) -> Reference:
        """Call a method of the next session, if there is none now."""
        try:
            arguments.own()
        except RpcError as exc:
            return BrokenReference(self.owner, exc)
        repetition = self._repeated.get(str(path[0])) if len(path) == 1 else None
        if repetition is not None:
            operation = repetition(self._calls, path, arguments)
            self._calls.add(operation)
            return operation.outcome
        return self._once(lambda main: main.call(path, on_this_session(arguments)), arguments.dispose)

    def get(self, path: Path) -> Reference:
        """Read a property of the next session's main target, if there is no session now."""
        if not path:
            return self.retain()
        return self._once(lambda main: main.get(path))

    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        """Apply a function to a property of the next session's main target, if there is no session now."""

        def release_captures() -> None:
            for capture in captures:
                capture.release()

        return self._once(lambda main: main.map(path, captures, instructions, budget), release_captures)

    def _once(
        self, ask: Callable[[Reference], Reference], let_go: Callable[[], None] | None = None
    ) -> Reference:
        operation = OneCall(self._calls, ask, let_go)
        self._calls.add(operation)
        return operation.outcome

    def when_settled(self, observer: Observer) -> None:
        """Hand ``observer`` a stub: this is no promise."""
        stub = Stub(self.retain())
        payload = Payload(self.owner, stub, stubs=[stub], private=True)
        observer(payload)
        payload.dispose()

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        """Have ``callback`` called when there will be no other session."""
        self._calls.on_closed(callback)


class OneCall:
    """An operation that is sent once. What it yields is the session's that it was sent on."""

    # Once it has been sent, its outcome is the session's.
    attempt: Reference | None = None

    def __init__(
        self,
        calls: CallQueue,
        ask: Callable[[Reference], Reference],
        let_go: Callable[[], None] | None,
    ) -> None:
        self.outcome = Outcome(calls, self)
        self._calls = calls
        self._ask = ask
        # Lets go of what is to be asked, if it is not.
        self._let_go = let_go

    def issue(self, main: Reference) -> None:
        """Send it."""
        self.outcome.settle(self._ask(main))

    def fail(self, error: Exception) -> None:
        """Give up."""
        self.issue(BrokenReference(self._calls, error))

    def withdraw(self) -> None:
        """Give up, silently."""
        self._calls.remove(self)
        if self._let_go is not None:
            self._let_go()

    def forget_attempt(self) -> None:
        """There is none."""


class RepeatedCall:
    """A call that is sent again until there is an answer."""

    def __init__(self, calls: CallQueue, path: Path, arguments: Payload) -> None:
        self.outcome = Outcome(calls, self)
        # What the session of the moment calls the result; calls of the same session are pipelined on it.
        self.attempt: Reference | None = None
        self._calls = calls
        self._path = path
        self._arguments = arguments

    def issue(self, main: Reference) -> None:
        """Send it, and ask for the answer: without, nobody would know what has to be sent again."""
        attempt = self.attempt = main.call(self._path, self._arguments_for_session())
        self._calls.sent(self)
        attempt.when_settled(lambda answer: self._answered(attempt, answer))

    def fail(self, error: Exception) -> None:
        """Give up."""
        self._arguments.dispose()
        self.outcome.settle(BrokenReference(self._calls, error))

    def withdraw(self) -> None:
        """Give up, silently."""
        self._calls.remove(self)
        self.forget_attempt()
        self._arguments.dispose()

    def forget_attempt(self) -> None:
        """Let go of what the session knows of it."""
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.release()

    def _arguments_for_session(self) -> Payload:
        return on_this_session(Payload.copy_of(self._calls, self._arguments.value))

    def _answered(self, attempt: Reference, answer: Payload | Exception) -> None:
        if self.attempt is not attempt or _is_no_answer(answer):
            return
        self._conclude(attempt, answer)

    def _conclude(self, attempt: Reference, answer: Payload | Exception) -> None:  # noqa: ARG002
        """Take the answer, which ``attempt`` has as well."""
        self.attempt = None
        self._calls.answered(self)
        self._arguments.dispose()
        self.outcome.settle(attempt)


def _is_no_answer(answer: Payload | Exception) -> bool:
    """Whether the session ended before there was one, through no fault of what it was asked."""
    return isinstance(answer, ConnectionLostError) and answer.close_code not in _REFUSALS
