"""Whether a credential still holds: it may expire, or be revoked, while what it opened is in use."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

__all__ = ["CredentialValidity"]

_LOOK_EVERY = 3.0  # seconds: so long goes on what a credential has opened when the clock is set forward


class CredentialValidity:
    """The standing of a credential that has been verified. It ends once, and for good.

    Whoever verifies the credential keeps the standing and ends it when the credential is revoked;
    an expiry needs nobody. Of one credential there is one standing, however often it is shown.
    """

    def __init__(self, expires_at: float | None = None) -> None:
        """Begin one that ends by itself at ``expires_at``, in seconds since the epoch; None: never."""
        self._expires_at = expires_at
        # A clock that is set back gives no credential more time.
        self._deadline = None if expires_at is None else time.monotonic() + expires_at - time.time()
        self._has_ended = False
        self._callbacks: list[Callable[[], object]] = []
        self._timer: asyncio.TimerHandle | None = None  # while there are callbacks, if it expires

    @property
    def is_over(self) -> bool:
        """Whether the credential holds no more."""
        return self._has_ended or self._left <= 0

    @property
    def _left(self) -> float:
        """Seconds, by whichever clock says that it is later."""
        if self._expires_at is None or self._deadline is None:
            return math.inf
        return min(self._expires_at - time.time(), self._deadline - time.monotonic())

    def end(self) -> None:
        """Say that the credential holds no more, and call whoever waits to hear of it."""
        self._has_ended = True
        self._stop_timer()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_end(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` once when the standing ends, or soon if it has ended.

        Needs a running event loop. Return a function that takes the request back.
        """
        if self.is_over:
            return asyncio.get_running_loop().call_soon(callback).cancel
        # Its own object for each request, so that the same callback may be asked for twice.
        waiting = partial(callback)
        self._callbacks.append(waiting)
        if self._timer is None and self._expires_at is not None:
            self._set_timer()

        def take_back() -> None:
            with suppress(ValueError):
                self._callbacks.remove(waiting)
            if not self._callbacks:
                self._stop_timer()

        return take_back

    def _set_timer(self) -> None:
        # Timers run on the monotonic clock, which does not tell that the other one was set.
        wait = min(max(self._left, 0.0), _LOOK_EVERY)
        self._timer = asyncio.get_running_loop().call_later(wait, self._look)

    def _look(self) -> None:
        if self.is_over:
            self.end()
        else:
            self._set_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __and__(self, other: "CredentialValidity") -> "CredentialValidity":
        """Return what holds as long as both do."""
        return _Both(self, other)


class _Both(CredentialValidity):
    """Holds as long as two others do."""

    def __init__(self, one: CredentialValidity, other: CredentialValidity) -> None:
        super().__init__()
        self._parts = (one, other)

    @property
    def is_over(self) -> bool:
        return any(part.is_over for part in self._parts)

    def on_end(self, callback: Callable[[], object]) -> Callable[[], None]:
        called = False

        def call_once() -> None:
            nonlocal called
            if not called:
                called = True
                take_back()
                callback()

        requests = [part.on_end(call_once) for part in self._parts]

        def take_back() -> None:
            for request in requests:
                request()

        return take_back
