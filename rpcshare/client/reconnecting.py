"""A connection that heals: when it is lost, the next one is made, and goes on where that one ended."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import anyio
import msgspec

from rpcshare.client.backoff import Backoff
from rpcshare.client.call_queue import CallQueue
from rpcshare.client.connect_failures import ConnectFailedError
from rpcshare.client.forks import ForkedError, break_after_fork
from rpcshare.client.retry import MainReference
from rpcshare.errors import ShareError
from rpcshare.rpc import ConnectionLostError, SessionClosedError, Stub
from rpcshare.rpc.event_loop import Task, running_loop
from rpcshare.rpc.waiting import Signal, finished, until

if TYPE_CHECKING:
    from rpcshare.client.connecting import Connecting

__all__ = ["ConnectionState", "Reconnecting", "StateChange", "Token"]

logger = logging.getLogger("rpcshare.client")

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A credential, or what returns a fresh one for each handshake."""

# Of a server that asks to be left alone for longer, the wish is not granted; in seconds.
LONGEST_RETRY_AFTER = 300.0

# For how many seconds a server that has been there may give answers that no attempt can change (404, a bad
# certificate): a proxy gives such while the server behind it is being replaced.
PERMANENT_FAILURES_LAST = 300.0


class ConnectionState(StrEnum):
    """Where a connection that heals is in its life."""

    CONNECTING = "connecting"
    """An attempt is under way."""
    CONNECTED = "connected"
    """There is a session."""
    WAITING = "waiting"
    """The last attempt failed, or the last session ended; the next attempt has its time."""
    CLOSED = "closed"
    """It is over: its block has been left, the server refused the credential, or no attempt can succeed."""


class StateChange(msgspec.Struct, frozen=True):
    """That a connection has come to a state, and why."""

    state: ConnectionState
    reason: Exception | None = None
    """How the last session ended, or why the last attempt failed; None where all is well."""
    next_attempt: datetime | None = None
    """When to connect again (UTC); only while ``waiting``."""


# What a server that is being stopped says with its close code (PROTOCOL.md, T-16).
_RETRY_AFTER = re.compile(r"\(retry-after=([0-9]{1,6}(?:\.[0-9]{1,6})?)\)$")


def _return_delay(reason: Exception) -> float | None:
    """Return after how many seconds a server that is being stopped wants its client back, if it says so."""
    if not isinstance(reason, ConnectionLostError):
        return None
    said = _RETRY_AFTER.search(reason.close_reason)
    return None if said is None else min(float(said[1]), LONGEST_RETRY_AFTER)


class _Step:
    """A change, and the next one as soon as there is one."""

    def __init__(self, change: StateChange) -> None:
        self.change = change
        self.next = self
        self.is_past = Signal()


class Reconnecting:
    """What :func:`~rpcshare.client.connecting.connect` returns for ``reconnect=True``: enter it for the stub.

    Entering takes one attempt. Unless that fails for good, the block begins, connected or not; calls wait for
    the next session. An attempt fails for good if the server refuses the credential, or answers what it would
    answer again (a redirect to another host, 404, a bad certificate, another protocol); where there has been
    a session, only if it goes on answering so for 5 minutes. The first failure is logged, and so is the end
    of it. The stub that it gives stays whole until the connection is closed. What was got from a
    session (a capability, a stream) breaks with it, except for subscriptions.

    Args:
        attempt: makes a connection that presents the token that it is given.
        token: the token, or what returns one.
        backoff: how long to wait between attempts.
    """

    def __init__(
        self,
        attempt: Callable[[str | None], Connecting],
        *,
        token: Token | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._attempt = attempt
        self._token = token
        self._backoff = backoff or Backoff()
        self._step = _Step(StateChange(ConnectionState.CONNECTING))
        self._calls: CallQueue | None = None
        self._current: Connecting | None = None
        self._keeper: Task | None = None
        # Connections that are over, with what they still have to do.
        self._endings: set[Task] = set()
        # When an attempt first failed in a way that no other can change, of those in a row; None: it has not.
        self._hopeless_since: float | None = None
        self._has_been_connected = False
        self._is_failing = False

    async def __aenter__(self) -> Stub:
        """Begin, and return the stub of whichever session there is.

        Raises:
            ShareError: ``UNAUTHORIZED`` or ``FORBIDDEN``: the server refused the handshake.
            ConnectFailedError: no other attempt can go better.
            Exception: what the function that makes tokens raised, unless that is an OSError.
        """
        if self._keeper is not None:
            raise RuntimeError("a connection is entered once")
        self._calls = CallQueue()
        break_after_fork(self)
        self._keeper = running_loop().create_task(self._keep())
        try:
            while self.state is ConnectionState.CONNECTING:
                await self._step.is_past.wait()
        except BaseException:
            await self._close()
            raise
        if self.state is ConnectionState.CLOSED and self.last_change.reason is not None:
            await self._close()
            raise self.last_change.reason
        return Stub(MainReference(self._calls))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    @property
    def state(self) -> ConnectionState:
        """Where it is now."""
        return self.last_change.state

    @property
    def last_change(self) -> StateChange:
        """How it came to be there."""
        return self._step.change

    @property
    def closed(self) -> SessionClosedError | None:
        """Why nothing can be asked any longer; None as long as something may be."""
        return self._calls.closed if self._calls is not None else None

    async def changes(self) -> AsyncGenerator[StateChange, None]:
        """Yield how it is now, and then each change, ``closed`` being the last."""
        step = self._step
        yield step.change
        while step.change.state is not ConnectionState.CLOSED:
            await step.is_past.wait()
            step = step.next
            yield step.change

    def _move(self, change: StateChange) -> None:
        before, self._step = self._step, _Step(change)
        before.next = self._step
        before.is_past.set()

    async def _keep(self) -> None:
        """Connect, again and again, until there is no use in another attempt."""
        try:
            while True:
                self._move(StateChange(ConnectionState.CONNECTING, self.last_change.reason))
                reason, delay = await self._connect_once()
                if not self._is_failing:
                    self._is_failing = True
                    logger.warning("no connection, trying again until there is one: %s", reason)
                next_attempt = datetime.now(UTC) + timedelta(seconds=delay)
                self._move(StateChange(ConnectionState.WAITING, reason, next_attempt))
                await anyio.sleep(delay)
        except Exception as exc:  # noqa: BLE001 -- whatever it is, it is what watchers and callers are told
            self._end(exc)

    async def _connect_once(self) -> tuple[Exception, float]:
        """Connect, and stay connected; return what came in the way, and for how many seconds to wait now."""
        try:
            token = self._token() if callable(self._token) else self._token
            attempt = self._attempt(await token if inspect.isawaitable(token) else token)
            await attempt.__aenter__()
        except OSError as exc:
            self._require_hope(exc)
            retry_after = min(getattr(exc, "retry_after", None) or 0.0, LONGEST_RETRY_AFTER)
            return exc, self._backoff.after_failure(retry_after)
        began = anyio.current_time()
        reason = await self._stay_connected(attempt)
        lasted = anyio.current_time() - began
        self._is_failing = self._is_failing and not self._backoff.is_good(lasted)
        return reason, self._backoff.after_connection(lasted, _return_delay(reason))

    def _require_hope(self, failure: OSError) -> None:
        """Return if another attempt may succeed; raise ``failure`` if there is no use in one."""
        if not (isinstance(failure, ConnectFailedError) and failure.is_permanent):
            self._hopeless_since = None
            return
        now = anyio.current_time()
        self._hopeless_since = now if self._hopeless_since is None else self._hopeless_since
        if not self._has_been_connected or now - self._hopeless_since >= PERMANENT_FAILURES_LAST:
            raise failure

    async def _stay_connected(self, attempt: Connecting) -> SessionClosedError:
        """Use a connection until it ends; return why it did."""
        assert attempt.connection is not None  # noqa: S101 -- it has been entered
        assert self._calls is not None  # noqa: S101 -- likewise
        session = attempt.connection.session
        self._current = attempt
        self._has_been_connected = True
        self._hopeless_since = None
        if self._is_failing:
            logger.info("connected again")
        self._move(StateChange(ConnectionState.CONNECTED))
        self._calls.begin_session(session)
        await until(lambda fire: session.remote_main.on_broken(lambda _error: fire()))
        self._calls.end_session()
        self._current = None
        # Functions that it has called may still be at work, and the next connection does not wait for them.
        ending = running_loop().create_task(attempt.__aexit__(None, None, None))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        assert session.closed is not None  # noqa: S101 -- that breaks its main target
        return session.closed

    def _end(self, reason: Exception | None) -> None:
        """Fail whatever waits, for good."""
        if self.state is ConnectionState.CLOSED:
            return
        error = SessionClosedError("the connection was closed by this side")
        if reason is not None:
            if self._has_been_connected or self._is_failing:  # else it is raised on entering
                logger.warning("the connection is given up: %s", reason)
            code = str(reason.code) if isinstance(reason, ShareError) else None
            error = SessionClosedError(f"the connection was given up: {reason}", code=code)
        if self._calls is not None:
            self._calls.close(error)
        self._move(StateChange(ConnectionState.CLOSED, reason))

    async def _close(self) -> None:
        # Who is cancelled has an end of its own to see to.
        with anyio.CancelScope(shield=True):
            self._end(None)
            current, self._current = self._current, None
            if self._keeper is not None:
                self._keeper.cancel()
                await finished(self._keeper)
            if current is not None:
                await current.__aexit__(None, None, None)
            await finished(*self._endings)

    def break_copy(self) -> None:
        """Fail whatever is asked in a process that was forked from the one that has the connection."""
        if self._calls is not None:
            self._calls.closed = ForkedError()
        # What waits, and the tasks, are the other process's.
        self._step = _Step(StateChange(ConnectionState.CLOSED, ForkedError()))
        self._current = None
        self._keeper = None
        self._endings = set()
