"""The calls to a server while sessions with it come and go, and what each of them will yield."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rpcshare.rpc import ConnectionLostError, EncodeError, Promise, Session, SessionClosedError, Stub
from rpcshare.rpc.local_references import LocalReference, ValueReference
from rpcshare.rpc.local_stubs import LocalOwner
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.promises import BrokenReference, PendingReference
from rpcshare.rpc.reference import Observer, Path, Reference
from rpcshare.rpc.remote import FarReference
from rpcshare.rpc.stub import path_of, reference_of

__all__ = ["CallQueue", "QueuedCall", "on_this_session"]

# How many calls may wait for their answers. A server bounds them (PROTOCOL.md, "Limits"), and many more
# can have gathered while there was no session.
WINDOW = 256

# How many sessions in a row may end with the same call the first to wait for its answer. It may well be what
# ends them: a server that cannot cope with what it is sent does not always get to say so. From the second
# time on, nothing is sent with it that could be the culprit in its place.
PATIENCE = 5

# Close codes (RFC 6455 section 7.4.1) of a peer that cannot cope with what it was sent; it would not a second
# time either.
_REFUSALS = frozenset({1002, 1003, 1007, 1009})


class CallQueue(LocalOwner):
    """The calls that wait for a session or for their answers, and the owner of the references to both."""

    def __init__(self) -> None:
        super().__init__()
        # Why nothing is asked any longer; None as long as something may be.
        self.closed: SessionClosedError | None = None
        # Breaks when there will be no other session.
        self.lifetime = PendingReference(self)
        # The session that there is.
        self._session: Session | None = None
        # In the order in which they are sent, again or for the first time.
        self._waiting: deque[QueuedCall] = deque()
        self._is_sending = False
        # Sent, not answered, and to be sent again should the session end.
        self._sent: dict[QueuedCall, None] = {}
        # Answered, and to be sent again all the same: what a subscription is.
        self._standing: dict[QueuedCall, None] = {}
        # The call that has waited longest when the last session ended, and how many ended so.
        self._stuck: QueuedCall | None = None
        self._times_stuck = 0

    def begin_session(self, session: Session) -> None:
        """Ask everything of the main target of ``session`` from here on."""
        self._session = session
        self._send_waiting()

    def end_session(self) -> None:
        """Keep everything for the next session. The one that was is over, and its calls have failed."""
        session, self._session = self._session, None
        oldest = next(iter(self._sent), None)
        self._times_stuck = self._times_stuck + 1 if oldest is not None and oldest is self._stuck else 1
        self._stuck = oldest
        again = [*self._standing, *self._sent]
        self._standing.clear()
        self._sent.clear()
        for call in again:
            call.forget_attempt()
        self._waiting.extendleft(reversed(again))
        if oldest is not None and session is not None and self._times_stuck >= PATIENCE:
            self.remove(oldest)
            oldest.fail(session.closed or SessionClosedError("the session has ended"))

    def close(self, error: SessionClosedError) -> None:
        """Fail everything: there will be no other session."""
        self.closed = error
        self.end_session()
        while self._waiting:
            self._waiting.popleft().fail(error)
        self.lifetime.settle(BrokenReference(self, error))

    def add(self, call: QueuedCall) -> Reference:
        """Have ``call`` sent after those before it; return what it will yield."""
        if self.closed is not None:
            call.fail(self.closed)
        else:
            self._waiting.append(call)
            self._send_waiting()
        return call

    def remove(self, call: QueuedCall, *, stands: bool = False) -> None:
        """Forget ``call``, wherever it is; one that ``stands`` is sent again on the next session."""
        if call in self._sent:
            del self._sent[call]
        elif call in self._standing:
            del self._standing[call]
        elif call in self._waiting:
            self._waiting.remove(call)
        if stands:
            self._standing[call] = None
        if call is self._stuck:
            self._stuck = None
            self._times_stuck = 0
        self._send_waiting()

    def _send_waiting(self) -> None:
        if self._is_sending:
            return  # by what a call that was sent has brought about at once
        self._is_sending = True
        try:
            while self._waiting and len(self._sent) < (WINDOW if self._times_stuck < 2 else 1):
                if self._session is None or self._session.closed is not None:
                    return
                call = self._waiting.popleft()
                if call.is_retried:
                    self._sent[call] = None
                call.send(reference_of(self._session.remote_main))
        finally:
            self._is_sending = False

    # As an owner of references (rpcshare.rpc.reference.Owner).

    def invoke(self, reference: Reference, path: Path, arguments: tuple[object, ...]) -> Reference:
        """Call what ``path`` of ``reference`` leads to, with arguments that the application keeps.

        Raises:
            EncodeError: an argument has no form on the wire, and that is known already.
        """
        result = super().invoke(reference, path, arguments)
        settled = result.resolution or result
        if isinstance(settled, BrokenReference) and isinstance(settled.error, EncodeError):
            raise settled.error
        return result

    def _reference_to(self, target: object) -> LocalReference:
        return _Kept(self, target)


class QueuedCall(PendingReference):
    """A call that has not been sent, or is sent again until there is an answer; what it will yield.

    Args:
        queue: sends it.
        ask: asks it of the main target of a session.
        let_go: lets go of what is to be asked, when it is not any longer.
        is_retried: whether it may be sent again. If not, what it yields is the session's that it was sent on.
    """

    __slots__ = ("_ask", "_let_go", "_queue", "attempt", "is_retried", "observers")

    def __init__(
        self,
        queue: CallQueue,
        ask: Callable[[Reference], Reference],
        let_go: Callable[[], None],
        *,
        is_retried: bool = False,
    ) -> None:
        super().__init__(queue)
        self._queue = queue
        self._ask = ask
        self._let_go = let_go
        self.is_retried = is_retried
        # What the session calls the result until there is one; its other calls are pipelined on that.
        self.attempt: Reference | None = None
        # How many of those who wait for it want nothing but to know. The others are calls that depend on it.
        self.observers = 0

    def send(self, main: Reference) -> None:
        """Ask it, and for the answer: without, nobody would know what has to be sent again."""
        attempt = self._ask(main)
        if self.is_retried:
            self.attempt = attempt
            attempt.when_settled(lambda answer: self._answered(attempt, answer))
        else:
            self.settle(attempt)

    def _answered(self, attempt: Reference, answer: Payload | Exception) -> None:
        is_lost = isinstance(answer, ConnectionLostError) and answer.close_code not in _REFUSALS
        if self.attempt is attempt and not is_lost:
            self.conclude(attempt, answer)

    def conclude(self, attempt: Reference, answer: Payload | Exception) -> None:  # noqa: ARG002
        """Take the answer, which ``attempt`` has as well."""
        self.attempt = None
        self._queue.remove(self)
        self._let_go()
        self.settle(attempt)

    def fail(self, error: Exception) -> None:
        """Give up: there will be no session for it."""
        self._let_go()
        self.settle(BrokenReference(self._queue, error))

    def withdraw(self) -> None:
        """Give up: nobody wants the outcome."""
        self._queue.remove(self)
        self.forget_attempt()
        self._let_go()

    def forget_attempt(self) -> None:
        """Let go of what the session knows of it."""
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.release()

    def drop(self) -> None:
        """Withdraw what was waited for and is not any longer; what nobody ever waited for is still done."""
        super().drop()
        if self._resolution is None and 0 < self.observers == self.waiting:
            self.withdraw()

    def when_settled(self, observer: Observer) -> None:
        """Have ``observer`` called with it."""
        self.observers += 1
        super().when_settled(observer)

    def get(self, path: Path) -> Reference:
        """Return a part of it, which is only read once the whole has come."""
        if not path or self._resolution is not None:
            return super().get(path)
        part = _Part(self, path)
        self._wait(lambda resolution: (part, resolution.get(path)))
        return part


class _Part(PendingReference):
    """A property of what a call will yield, known by where it is."""

    __slots__ = ("_is_observed", "origin", "path")

    def __init__(self, origin: QueuedCall, path: Path) -> None:
        super().__init__(origin.owner)
        self.origin = origin.retain()
        self.path = path
        self._is_observed = False

    def drop(self) -> None:
        super().drop()
        self.origin.release()

    def when_settled(self, observer: Observer) -> None:
        if not self._is_observed:
            self._is_observed = True
            self.origin.observers += 1
        super().when_settled(observer)

    def get(self, path: Path) -> Reference:
        if not path or self._resolution is not None:
            return super().get(path)
        return self.origin.get((*self.path, *path))


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


def on_this_session(arguments: Payload) -> Payload:
    """Have ``arguments``, which are private, say of each queued call in them what the session calls it."""
    for container, key, promise in arguments.promises:
        replacement = _on_this_session(promise)
        if replacement is None:
            continue
        container[key] = replacement  # type: ignore[call-overload, index]  # arguments are a list, and what is in them
        if isinstance(replacement, Stub) and arguments.stubs is not None:
            arguments.stubs.append(replacement)
    return arguments


def _on_this_session(promise: Promise) -> object:
    """Return the promise of the session, or the plain value, that stands for ``promise``; None for itself."""
    reference: Reference = reference_of(promise)
    path = path_of(promise)
    if isinstance(reference, _Part) and reference.resolution is None:
        path = (*reference.path, *path)
        reference = reference.origin
    if isinstance(reference, QueuedCall) and reference.resolution is None:
        return None if reference.attempt is None else Promise(reference.attempt.retain(), path)
    while isinstance(reference, _Part | QueuedCall | FarReference) and reference.resolution is not None:
        reference = reference.resolution
    if isinstance(reference, FarReference):
        return Promise(reference.retain(), path)
    if isinstance(reference, ValueReference) and isinstance(reference.payload.value, str | int | float):
        return reference.payload.value
    return None
