"""Telling a clock that was set forward from one that went on.

A virtual machine that is resumed, or a wrong time server, moves the clock by days in a moment. What is
destroyed because of it does not come back when the clock is right again.
"""

import logging
import time
from collections.abc import Callable

__all__ = ["SteadyClock"]

logger = logging.getLogger(__name__)

_TOLERANCE = 10_000  # milliseconds by which the clock may be ahead of the monotonic one between two looks
_GRACE = 3600.0  # seconds that a clock has to go on after a step to be believed


class SteadyClock:
    """A clock that takes an hour to follow one that was set forward. Looked at every few seconds."""

    def __init__(self, clock: Callable[[], int], monotonic: Callable[[], float] = time.monotonic) -> None:
        """Follow ``clock``, which returns milliseconds since the epoch."""
        self._clock = clock
        self._monotonic = monotonic
        self._seen: tuple[int, float] | None = None  # both clocks, when the one was last believed
        self._stepped_at: float | None = None

    def __call__(self) -> int:
        """Return milliseconds since the epoch: the clock's, or earlier ones while it is not believed."""
        now, at = self._clock(), self._monotonic()
        if self._seen is not None:
            expected = self._seen[0] + round((at - self._seen[1]) * 1000)
            if now > expected + _TOLERANCE:
                if self._stepped_at is None:
                    self._stepped_at = at
                    logger.warning(
                        "The clock was set forward by %d s. Shares that have expired only because of that "
                        "are not removed before it has gone on for an hour.",
                        (now - expected) // 1000,
                    )
                if at - self._stepped_at < _GRACE:
                    return expected
        self._seen, self._stepped_at = (now, at), None
        return now
