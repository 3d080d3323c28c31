"""Whether a credential still holds: it may expire, or be revoked, while what it opened is in use."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

__all__ = ["Standing"]


class Standing:
    """The standing of a credential that has been verified. It ends once, and for good.

    Whoever verifies the credential keeps the standing and ends it when the credential is revoked;
    an expiry needs nobody. Of one credential there is one standing, however often it is shown.
    """

    def __init__(self, expires_at: float | None = None) -> None:
        """Begin one that ends by itself at ``expires_at``, in seconds since the epoch; None: never."""
        self._expires_at = expires_at
        self._has_ended = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def is_over(self) -> bool:
        """Whether the credential holds no more."""
        return self._has_ended or (self._expires_at is not None and time.time() >= self._expires_at)

    def end(self) -> None:
        """Say that the credential holds no more, and call whoever waits to hear of it."""
        self._has_ended = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_end(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` once when the standing ends, or soon if it has ended.

        Needs a running event loop. Return a function that takes the request back.
        """
        loop = asyncio.get_running_loop()
        timer: asyncio.Handle | None = None
        if self.is_over:
            timer = loop.call_soon(callback)
            return timer.cancel
        if self._expires_at is not None:
            timer = loop.call_later(self._expires_at - time.time(), self.end)
        # Its own object for each request, so that the same callback may be asked for twice.
        waiting = partial(callback)
        self._callbacks.append(waiting)

        def take_back() -> None:
            if timer is not None:
                timer.cancel()
            with suppress(ValueError):
                self._callbacks.remove(waiting)

        return take_back

    def __and__(self, other: "Standing") -> "Standing":
        """Return what holds as long as both do."""
        return _Both(self, other)


class _Both(Standing):
    """Holds as long as two others do."""

    def __init__(self, one: Standing, other: Standing) -> None:
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
