"""Lengths of time as people write them, ``30d``, ``12h``, ``90m``, ``45s`` or ``2w``, and as programs do."""

import re

__all__ = ["DURATION_PATTERN", "MAX_DURATION", "parse_duration"]

MAX_DURATION = 200 * 365 * 86_400
"""In seconds: two hundred years, so that what ends after it is still a date."""

DURATION_PATTERN = "([1-9][0-9]{0,8}s|[1-9][0-9]{0,7}m|[1-9][0-9]{0,5}h|[1-9][0-9]{0,3}[dw])"
"""How one is written. Nothing of this form is too long."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_WRITTEN = re.compile(DURATION_PATTERN)


def parse_duration(value: object) -> float:
    """Return how many seconds ``value`` is: a number of them, or a whole number with a unit.

    Units are ``s``, ``m`` (minutes), ``h``, ``d`` and ``w``.

    Raises:
        ValueError: it is neither, or not above 0, or over two hundred years. The message does not name what
            it was given for, and does not repeat it.
    """
    seconds: float
    if isinstance(value, str):
        match = _WRITTEN.fullmatch(value.strip())
        if match is None:
            raise ValueError("must be a duration such as 30d, 12h, 90m, 45s or 2w")
        seconds = int(match[1][:-1]) * _SECONDS[match[1][-1]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    else:
        raise ValueError(  # noqa: TRY004 -- one kind of error for all that is wrong with a setting
            "must be a number of seconds or a duration such as 30d"
        )
    # Written so that NaN, which compares with nothing, is refused.
    if not 0 < seconds <= MAX_DURATION:
        raise ValueError("must be longer than nothing and at most two hundred years")
    return seconds
