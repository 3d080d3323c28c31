"""How long to wait before the next attempt to connect."""

from __future__ import annotations

from time import monotonic

from rpcshare.retry_delay import retry_delay

__all__ = ["Backoff"]

# A server that has told its clients when to come back is restarting: for so many seconds, no delay is longer.
_RESTART_LASTS = 30.0
_LONGEST_IN_RESTART = 2.0


class Backoff:
    """Exponential, with full jitter: clients that lost the same server do not come back at the same moment.

    Args:
        first: seconds that the first delay is at most; each that follows may be twice as long.
        longest: seconds that no delay exceeds, unless the server asks for more.
        lasting: seconds after which a connection counts as a good one, so that delays begin anew.
    """

    def __init__(self, *, first: float = 0.1, longest: float = 30.0, lasting: float = 10.0) -> None:
        self._first = first
        self._longest = longest
        self._lasting = lasting
        self._failures = 0
        self._restart_ends = 0.0

    def after_failure(self, retry_after: float | None = None) -> float:
        """Return the seconds to wait after an attempt that failed.

        Args:
            retry_after: seconds that the server asked for.
        """
        self._failures += 1
        is_restart = monotonic() < self._restart_ends
        longest = min(self._longest, _LONGEST_IN_RESTART) if is_restart else self._longest
        delay = retry_delay(self._failures, first=self._first, longest=longest, least=0.0)
        return max(delay, retry_after or 0)

    def after_connection(self, lasted: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait after a connection that ``lasted`` for so many.

        Args:
            lasted: seconds.
            retry_after: seconds that the server asked for when it was stopped. That is no failure.
        """
        if retry_after is not None:
            self._restart_ends = monotonic() + retry_after + _RESTART_LASTS
        if self.is_good(lasted) or retry_after is not None:
            self._failures = 0
        return self.after_failure(retry_after)

    def is_good(self, lasted: float) -> bool:
        """Whether a connection that ``lasted`` for so many seconds counts as a good one."""
        return lasted >= self._lasting
