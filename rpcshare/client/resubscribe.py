"""A subscription that goes on from session to session."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from rpcshare.client.call_queue import CallQueue, QueuedCall, on_this_session
from rpcshare.errors import ErrorCode
from rpcshare.rpc import RpcError, RpcTarget, Stub, rpc_method
from rpcshare.rpc.local_references import LocalReference, ValueReference
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.promises import BrokenReference, PendingReference
from rpcshare.rpc.reference import Reference
from rpcshare.rpc.stub import reference_of
from rpcshare.rpc.target import is_function

__all__ = ["ResumedSubscription"]

logger = logging.getLogger("rpcshare.client")

# The arguments of subscribe(shareID, onEvent, fromSyncCount?).
_ON_EVENT = 1
_FROM = 2

# Failures of a server that may be over soon, and the seconds after which to ask again.
_PASSING = frozenset({ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.RATE_LIMITED})
_PASSING_DELAY = 1.0

_GONE = frozenset({ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE})


class ResumedSubscription(QueuedCall):
    """A call of ``subscribe`` that each session makes anew, from the last event that was passed on.

    Nothing that a session brings twice is passed on, and nothing is left out: either the server still has the
    syncs after the last one, or it begins with a snapshot, which is passed on then.
    """

    __slots__ = ("_arguments", "_last", "_on_event", "_receiver", "_reference")

    def __init__(self, queue: CallQueue, arguments: Payload, values: list[object]) -> None:
        super().__init__(queue, self._subscribe, arguments.dispose, is_retried=True)
        self._arguments = arguments
        self._on_event = _function_of(values[_ON_EVENT])
        # The syncCount of the last event that was passed on, or that the subscriber has had before.
        begins_after = values[_FROM] if len(values) > _FROM else None
        self._last = begins_after if isinstance(begins_after, int) else None
        # What the session of the moment calls with its events; None when there is nothing left to ask for.
        self._receiver: Callable[[object], object] | None = None
        self._reference = _SubscriptionReference(queue, _Subscription(self))

    @staticmethod
    def fits(values: list[object]) -> bool:
        """Whether these are arguments of ``subscribe``; else the server says what is wrong with them."""
        return len(values) > _ON_EVENT and isinstance(values[_ON_EVENT], Stub)

    def end(self) -> None:
        """Unsubscribe. Again is no error."""
        self._receiver = None
        self.withdraw()

    def fail(self, error: Exception) -> None:
        """Give up."""
        if self._resolution is None:
            super().fail(error)
        else:
            self._let_go()
            self._reference.lifetime.settle(BrokenReference(self._queue, error))

    def _subscribe(self, main: Reference) -> Reference:
        arguments = on_this_session(Payload.copy_of(self._queue, self._arguments.value))
        values: list[object] = arguments.value  # type: ignore[assignment]  # it is a copy of a list

        def receive(event: object) -> object:
            # What an old session still has to say comes from the new one as well.
            return self._on_event(event) if receive is self._receiver and self._is_news(event) else None

        self._receiver = values[_ON_EVENT] = receive
        if self._last is not None:
            values[_FROM:] = [self._last]
        return main.call(("subscribe",), arguments)

    def _is_news(self, event: object) -> bool:
        if not isinstance(event, dict):
            return True
        kind, count = event.get("type"), event.get("syncCount")
        if kind == "sync" and isinstance(count, int) and self._last is not None and count <= self._last:
            return False
        if kind in ("deleted", "error"):
            self._receiver = None
            if self._resolution is not None:
                self._queue.remove(self)
        elif isinstance(count, int):
            self._last = count
        return True

    def conclude(self, attempt: Reference, answer: Payload | Exception) -> None:
        """Stay subscribed, or hear why that cannot be."""
        if not isinstance(answer, Exception):
            self._queue.remove(self, stands=self._receiver is not None)
            if self._resolution is None:
                stub = Stub(self._reference.retain())
                payload = Payload(self._queue, stub, stubs=[stub], private=True)
                self.settle(ValueReference(self._queue, payload))
        elif self._resolution is None:
            super().conclude(attempt, answer)
        else:
            self.forget_attempt()
            self._queue.remove(self)
            self._queue.run(self._refused(answer))

    async def _refused(self, error: Exception) -> None:
        """What could be subscribed to before cannot any longer."""
        code = error.code if isinstance(error, RpcError) else None
        if code in _PASSING:
            await anyio.sleep(_PASSING_DELAY)
            if self._receiver is not None:
                self._queue.add(self)
        elif code in _GONE:
            await self._tell_deleted()
        else:
            self.fail(error)

    async def _tell_deleted(self) -> None:
        """Pass on what no session could tell, since there was none when the share was deleted."""
        arguments = on_this_session(Payload.copy_of(self._queue, self._arguments.value))
        event = {"type": "deleted", "shareID": arguments.value[0]}  # type: ignore[index]  # as above
        arguments.dispose()
        try:
            handled = self._on_event(event)
            if isinstance(handled, Awaitable):
                await handled
        except Exception:
            # With no session there is nobody to answer.
            logger.exception("a subscriber failed")


class _Subscription(RpcTarget):
    """What the caller of ``subscribe`` holds. Letting go of it unsubscribes."""

    def __init__(self, call: ResumedSubscription) -> None:
        self._call = call

    @rpc_method("unsubscribe()")
    def unsubscribe(self) -> None:
        """Pass nothing on any longer."""
        self._call.end()

    def dispose(self) -> None:
        """Do the same."""
        self._call.end()


class _SubscriptionReference(LocalReference):
    """A reference to a subscription, which breaks when no more events will come."""

    __slots__ = ("lifetime",)

    def __init__(self, queue: CallQueue, subscription: _Subscription) -> None:
        super().__init__(queue, subscription)
        self.lifetime = PendingReference(queue)

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        self.lifetime.on_broken(callback)


def _function_of(stub: object) -> Callable[[object], object]:
    """Return what to call with an event."""
    assert isinstance(stub, Stub)  # noqa: S101 -- as fits() has found
    reference = reference_of(stub)
    if isinstance(reference, LocalReference) and is_function(reference.target):
        function: Callable[[object], object] = reference.target  # type: ignore[assignment]  # it is a function
        return function
    return stub
