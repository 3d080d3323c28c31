"""How long to wait before the next attempt: exponential backoff with jitter.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog. With jitter, those that
failed together do not come back together.
"""

import random

__all__ = ["retry_delay"]


def retry_delay(failures: int, *, first: float = 0.1, longest: float = 1.0, least: float = 0.5) -> float:
    """Return the seconds to wait after ``failures`` attempts in a row that failed: one at least.

    Args:
        failures: how many attempts have failed.
        first: seconds that the first delay is at most; each that follows may be twice as long.
        longest: seconds that no delay exceeds.
        least: what part of its bound a delay is at least; 0 spreads the attempts most.
    """
    bound = min(longest, first * 2 ** min(failures - 1, 64))
    return random.uniform(least * bound, bound)  # noqa: S311 -- not a secret
