"""A subscription that goes on from session to session."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from rpcshare.client.call_queue import CallQueue, tell_broken
from rpcshare.client.retry import RepeatedCall
from rpcshare.errors import ErrorCode
from rpcshare.rpc import UNDEFINED, RpcError, Stub
from rpcshare.rpc.local_references import LocalReference, ValueReference
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.promises import BrokenReference
from rpcshare.rpc.reference import Budget, Instructions, Observer, Path, Reference
from rpcshare.rpc.stub import reference_of
from rpcshare.rpc.target import is_function

__all__ = ["ResumedSubscription", "subscribe"]

logger = logging.getLogger("rpcshare.client")

# The arguments of subscribe(shareID, onEvent, fromSyncCount?).
_ON_EVENT = 1
_FROM = 2

# Failures of a server that may be over soon, and the seconds after which to ask again.
_PASSING = frozenset({ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.RATE_LIMITED})
_PASSING_DELAY = 1.0

_GONE = frozenset({ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE})


def subscribe(calls: CallQueue, path: Path, arguments: Payload) -> RepeatedCall:
    """Return the operation for a call of ``subscribe``."""
    values = arguments.value
    if isinstance(values, list) and len(values) > _ON_EVENT and isinstance(values[_ON_EVENT], Stub):
        return ResumedSubscription(calls, path, arguments)
    return RepeatedCall(calls, path, arguments)  # the server says what is wrong with the arguments


class ResumedSubscription(RepeatedCall):
    """A call of ``subscribe`` that each session makes anew, from the last event that was passed on.

    Nothing that a session brings twice is passed on, and nothing is left out: either the server still has the
    syncs after the last one, or it begins with a snapshot, which is passed on then.
    """

    def __init__(self, calls: CallQueue, path: Path, arguments: Payload) -> None:
        super().__init__(calls, path, arguments)
        values: list[object] = arguments.value  # type: ignore[assignment]  # as subscribe() has found
        self._on_event = _function_of(values[_ON_EVENT])
        # The syncCount of the last event that was passed on, or that the subscriber has had before.
        begins_after = values[_FROM] if len(values) > _FROM else None
        self._last = begins_after if isinstance(begins_after, int) else None
        self._established = False
        # Whether there is nothing left to subscribe to.
        self._is_over = False
        # What the session of the moment calls with its events.
        self._receiver: Callable[[object], object] | None = None
        self._reference = _SubscriptionReference(self)

    @property
    def calls(self) -> CallQueue:
        """What sends it."""
        return self._calls

    def end(self) -> None:
        """Unsubscribe. Again is no error."""
        self._receiver = None
        self.withdraw()

    def fail(self, error: Exception) -> None:
        """Give up."""
        if self._established:
            self._arguments.dispose()
            self._reference.broken(error)
        else:
            super().fail(error)

    def _arguments_for_session(self) -> Payload:
        arguments = super()._arguments_for_session()
        values: list[object] = arguments.value  # type: ignore[assignment]  # it is a copy of a list

        def receive(event: object) -> object:
            # What an old session still has to say comes from the new one as well.
            return self._on_event(event) if receive is self._receiver and self._is_news(event) else None

        self._receiver = values[_ON_EVENT] = receive
        if self._last is not None:
            values[_FROM:] = [self._last]
        return arguments

    def _is_news(self, event: object) -> bool:
        if not isinstance(event, dict):
            return True
        kind, count = event.get("type"), event.get("syncCount")
        if kind == "sync" and isinstance(count, int) and self._last is not None and count <= self._last:
            return False
        if kind in ("deleted", "error"):
            self._is_over = True
            if self._established:
                self._calls.remove(self)
        elif isinstance(count, int):
            self._last = count
        return True

    def _conclude(self, attempt: Reference, answer: Payload | Exception) -> None:
        if not isinstance(answer, Exception):
            self._calls.answered(self, stands=not self._is_over)
            if not self._established:
                self._established = True
                stub = Stub(self._reference)
                self.outcome.settle(
                    ValueReference(self._calls, Payload(self._calls, stub, stubs=[stub], private=True))
                )
        elif not self._established:
            super()._conclude(attempt, answer)
        else:
            self.forget_attempt()
            self._calls.answered(self)
            self._refused(answer)

    def _refused(self, error: Exception) -> None:
        """What could be subscribed to before cannot any longer."""
        code = error.code if isinstance(error, RpcError) else None
        if code in _PASSING:
            self._calls.add_later(_PASSING_DELAY, self)
        elif code in _GONE:
            self._calls.run(self._tell_deleted())
        else:
            self.fail(error)

    async def _tell_deleted(self) -> None:
        """Pass on what no session could tell, since there was none when the share was deleted."""
        arguments = super()._arguments_for_session()
        values: list[object] = arguments.value  # type: ignore[assignment]  # as above
        event = {"type": "deleted", "shareID": values[0]}
        arguments.dispose()
        try:
            handled = self._on_event(event)
            if isinstance(handled, Awaitable):
                await handled
        except Exception:
            # With no session there is nobody to answer.
            logger.exception("a subscriber failed")


def _function_of(stub: object) -> Callable[[object], object]:
    """Return what to call with an event."""
    assert isinstance(stub, Stub)  # noqa: S101 -- as subscribe() has found
    reference = reference_of(stub)
    if isinstance(reference, LocalReference) and is_function(reference.target):
        function: Callable[[object], object] = reference.target  # type: ignore[assignment]  # it is a function
        return function
    return stub


class _SubscriptionReference(Reference):
    """What the caller of ``subscribe`` holds. Letting go of it unsubscribes."""

    __slots__ = ("_broken_callbacks", "_error", "_subscription")

    def __init__(self, subscription: ResumedSubscription) -> None:
        super().__init__(subscription.calls)
        self._subscription = subscription
        self._error: Exception | None = None
        self._broken_callbacks: list[Callable[[Exception], None]] = []

    def drop(self) -> None:
        self._subscription.end()

    def call(self, path: Path, arguments: Payload) -> Reference:
        if path == ("unsubscribe",):
            arguments.dispose()
            self._subscription.end()
            return ValueReference(self.owner, Payload.given(self.owner, UNDEFINED))
        current = self._current()
        return current.call(path, arguments)

    def get(self, path: Path) -> Reference:
        return self._current().get(path) if path else self.retain()

    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        return self._current().map(path, captures, instructions, budget)

    def _current(self) -> Reference:
        """Return the subscription of the session that there is."""
        if self._subscription.attempt is not None:
            return self._subscription.attempt
        return BrokenReference(self.owner, self._error or RpcError("there is no session now"))

    def when_settled(self, observer: Observer) -> None:
        stub = Stub(self.retain())
        payload = Payload(self.owner, stub, stubs=[stub], private=True)
        observer(payload)
        payload.dispose()

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        if self._error is not None:
            callback(self._error)
        else:
            self._broken_callbacks.append(callback)

    def broken(self, error: Exception) -> None:
        """Tell who wanted to know that no more events will come."""
        self._error = error
        callbacks, self._broken_callbacks = self._broken_callbacks, []
        tell_broken(callbacks, error)
