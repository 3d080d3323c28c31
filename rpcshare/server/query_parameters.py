"""Numbers in the queries and heads of requests."""

from __future__ import annotations

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.operation import Parameter

__all__ = ["FROM_SYNC_COUNT", "from_sync_count", "whole_number"]

_MAX_COUNT = 2**53 - 1  # the greatest integer that JavaScript has

FROM_SYNC_COUNT = Parameter(
    name="fromSyncCount",
    place="query",
    schema={"type": "integer", "minimum": 0, "maximum": _MAX_COUNT},
    description="The `syncCount` of the last event that the client has: what came after it is sent.",
)


def from_sync_count(text: str | None, name: str = "fromSyncCount") -> int | None:
    """Return the number of a sync, as a request names it.

    Raises:
        ShareError: INVALID_ARGUMENT.
    """
    if text is None:
        return None
    count = whole_number(text, name)
    if count > _MAX_COUNT:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{name}: must be at most {_MAX_COUNT}")
    return count


def whole_number(text: str, name: str) -> int:
    """Return the number that a parameter is.

    Raises:
        ShareError: INVALID_ARGUMENT.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{name}: expected a whole number")
    return int(text)
