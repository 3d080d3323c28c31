"""Integers, of which JavaScript's numbers hold those up to 2⁵³ exactly."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["MAX_SAFE_INTEGER", "float_from_integer", "is_safe"]

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""The largest integer of which JavaScript's ``number`` holds every smaller one."""


def is_safe(value: int) -> bool:
    """Whether ``value`` can be a number on the wire."""
    return -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER


def float_from_integer(value: int) -> float:
    """Return the number that JavaScript reads ``value`` as, which has too many digits for it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
