"""How long operations take, as plain numbers that become a Prometheus histogram when they are asked for."""

from bisect import bisect_left

__all__ = ["BOUNDS", "Latencies"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the buckets, in seconds."""


class Latencies:
    """The times of one kind of operation."""

    __slots__ = ("counts", "failures", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """How many took at most as long as each of the bounds, and longer than the one before."""
        self.seconds = 0.0
        """Of all together."""
        self.failures = 0
        """How many of them failed."""

    def add(self, seconds: float, *, has_failed: bool = False) -> None:
        """Count one more."""
        self.seconds += seconds
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.failures += has_failed
