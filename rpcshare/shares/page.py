"""What a caller asks of a listing, and what it gets."""

import re
from typing import Self

import msgspec

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.state import SessionIndex

__all__ = ["CURSOR_PATTERN", "Page", "Query"]

_DEFAULT_LIMIT = 50
_MAX_LIMIT = 200

CURSOR_PATTERN = r"(?P<order>-?[0-9]{1,16})\.(?P<share_id>[A-Za-z0-9_-]{1,288})"
"""What a cursor looks like. What it says is nobody's business but the server's."""

_CURSOR = re.compile(CURSOR_PATTERN)


class Page(msgspec.Struct, frozen=True):
    """Some shares of a listing, newest first."""

    sessions: list[SessionIndex]
    count: int
    """How many shares the listing has in all."""
    cursor: str | None
    """What to ask for the next page with; None if this is the last."""


class Query(msgspec.Struct, frozen=True):
    """What a caller asks for."""

    owners: tuple[str, ...] | None
    """Whose shares; None: everybody's."""
    after: tuple[int, str] | None
    """The place in the order of all shares behind which to begin."""
    limit: int
    text: str
    """What a title, directory, id or session ID must contain, case-folded."""
    by_change: bool = False
    """Whether those come first that changed last, and not those that were made last."""

    @classmethod
    def parse(
        cls,
        owners: tuple[str, ...] | None,
        cursor: object,
        limit: object,
        query: object,
        *,
        by_change: bool = False,
    ) -> Self:
        """Return the query that a caller's arguments make, each of which may be None.

        Raises:
            ShareError: INVALID_ARGUMENT; the message names the argument.
        """
        if limit is None:
            limit = _DEFAULT_LIMIT
        if type(limit) is not int or not 1 <= limit <= _MAX_LIMIT:
            raise _invalid(f"limit: must be a whole number from 1 to {_MAX_LIMIT}")
        if query is not None and not isinstance(query, str):
            raise _invalid("query: must be a string")
        if cursor is not None and not isinstance(cursor, str):
            raise _invalid("cursor: must be a string")
        after = _place(cursor) if cursor is not None else None
        return cls(owners, after, limit, (query or "").casefold(), by_change)

    @staticmethod
    def cursor_behind(place: tuple[int, str]) -> str:
        """Return the cursor for what comes behind ``place``."""
        order, share_id = place
        return f"{order}.{share_id}"


def _place(cursor: str) -> tuple[int, str]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise _invalid("cursor: is not one that this server gave")
    return int(match["order"]), match["share_id"]


def _invalid(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
