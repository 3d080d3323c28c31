"""For the type checker: what a test knows of a value, and its type does not say."""

from typing import TypeVar

T = TypeVar("T")


def not_none(value: T | None) -> T:
    """Return ``value``, which must be there."""
    assert value is not None
    return value
