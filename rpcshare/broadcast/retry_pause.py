"""How long to wait before asking again somebody who did not answer."""

import random

__all__ = ["retry_pause"]

_FIRST = 0.1  # seconds
_LONGEST = 1.0


def retry_pause(failures: int) -> float:
    """Return seconds: longer with each of ``failures`` in a row, and never the same for two who ask."""
    limit = min(_LONGEST, _FIRST * 2 ** (failures - 1))
    return random.uniform(limit / 2, limit)  # noqa: S311 -- nothing secret
