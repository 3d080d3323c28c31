"""What a caller asks of a listing, and what it gets."""

import re
from typing import Self

import msgspec

from rpcshare.auth.subject_sources import organization_of
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.search_words import clean
from rpcshare.shares.state import SessionIndex

__all__ = ["COUNTED", "CURSOR_PATTERN", "LIVE_FOR", "Filters", "Page", "Query", "Reach", "RowPage"]

_DEFAULT_LIMIT = 50
_MAX_LIMIT = 200
_MAX_TEXT = 1000
COUNTED = 5000
"""Of what is chosen by a filter, so many shares are counted, and no more."""
LIVE_FOR = 60_000
"""Milliseconds since the last sync of a share that is live."""

CURSOR_PATTERN = r"(?P<order>-?[0-9]{1,16})\.(?P<share_id>[A-Za-z0-9_-]{1,288})"
"""What a cursor looks like. What it says is nobody's business but the server's."""

_CURSOR = re.compile(CURSOR_PATTERN)


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some shares of a listing, newest first."""

    sessions: list[SessionIndex]
    count: int
    """How many shares the listing has in all; of one with a query, so many at least: not all are counted."""
    cursor: str | None
    """What to ask for the next page with; None if this is the last."""
    indexing: bool = False
    """Not all shares have been indexed yet, so there may be more."""


class RowPage(msgspec.Struct, frozen=True):
    """Some rows of the catalogue, as :class:`Page` has their indexes."""

    rows: list[CatalogueRow]
    count: int
    has_more: bool
    """In the direction that was asked for."""
    by_change: bool
    is_complete: bool = True
    is_least: bool = False
    """Whether there may be more than ``count``."""

    def public(self) -> Page:
        """Return what callers are told."""
        cursor = self.cursor_of(self.rows[-1]) if self.rows and self.has_more else None
        return Page([row.index for row in self.rows], self.count, cursor, not self.is_complete)

    def cursor_of(self, row: CatalogueRow) -> str:
        """Return the cursor for what comes behind, or before, a row."""
        order, share_id = place_of(row, by_change=self.by_change)
        return f"{order}.{share_id}"


class Reach(msgspec.Struct, frozen=True):
    """Which shares a caller may list: those of its own, and those of its organization."""

    owners: tuple[str, ...] | None
    """Whose shares; None: everybody's."""
    organization: str | None = None
    """Whose users' shares, too."""
    sees_all_of_it: bool = False
    """Whether all of the organization's; else those that are for its users."""

    def has(self, owner: str | None, *, is_for_members: bool) -> bool:
        """Whether a share is among them."""
        if self.owners is None or owner in self.owners:
            return True
        is_of_organization = self.organization is not None and organization_of(owner) == self.organization
        return is_of_organization and (self.sees_all_of_it or is_for_members)


class Filters(msgspec.Struct, frozen=True):
    """Which shares a listing shows, besides whose."""

    project: str = ""
    """The last name in the directory; empty: any."""
    is_live: bool = False
    is_private: bool = False
    since: int | None = None
    """Milliseconds since the epoch, of the time that the listing is in the order of."""
    until: int | None = None


class Query(msgspec.Struct, frozen=True):
    """What a caller asks for."""

    reach: Reach
    """Among which shares."""
    after: tuple[int, str] | None
    """The place in the order of all shares behind which to begin."""
    limit: int
    text: str
    """What a title, directory, id or session ID must contain, case-folded."""
    by_change: bool = False
    """Whether those come first that changed last, and not those that were made last."""
    is_backwards: bool = False
    """Whether those before ``after`` are asked for."""
    filters: Filters = Filters()

    @classmethod
    def parse(
        cls,
        reach: Reach | tuple[str, ...] | None,
        cursor: object,
        limit: object,
        query: object,
        *,
        by_change: bool = False,
        is_backwards: bool = False,
        filters: Filters | None = None,
    ) -> Self:
        """Return the query that a caller's arguments make, each of which may be None.

        Owners alone are within reach where no organization is: None is everybody.

        Raises:
            ShareError: INVALID_ARGUMENT; the message names the argument.
        """
        if limit is None:
            limit = _DEFAULT_LIMIT
        if type(limit) is not int or not 1 <= limit <= _MAX_LIMIT:
            raise _invalid(f"limit: must be a whole number from 1 to {_MAX_LIMIT}")
        if query is not None and not isinstance(query, str):
            raise _invalid("query: must be a string")
        if query is not None and len(query) > _MAX_TEXT:
            raise _invalid(f"query: must be at most {_MAX_TEXT} characters")
        if cursor is not None and not isinstance(cursor, str):
            raise _invalid("cursor: must be a string")
        after = _place(cursor) if cursor is not None else None
        text = clean(query or "").casefold()
        reach = reach if isinstance(reach, Reach) else Reach(reach)
        return cls(reach, after, limit, text, by_change, is_backwards, filters or Filters())

    def takes(self, row: CatalogueRow, now: int) -> bool:
        """Whether the listing has this row, on whatever page."""
        index, filters = row.index, self.filters
        at = index.last_updated if self.by_change else index.created_at
        texts = (index.title, index.directory, index.id, index.session_id)
        return (
            self.reach.has(row.owner, is_for_members=row.is_for_organization)
            and (row.expires_at is None or now < row.expires_at)
            and (not filters.project or filters.project == row.project)
            and (not filters.is_live or index.last_updated > now - LIVE_FOR)
            and (not filters.is_private or row.is_private)
            and (filters.since is None or at >= filters.since)
            and (filters.until is None or at < filters.until)
            and (not self.text or any(self.text in text.casefold() for text in texts))
        )


def place_of(row: CatalogueRow, *, by_change: bool) -> tuple[int, str]:
    """Return the place of a row in the order of a listing."""
    return -(row.index.last_updated if by_change else row.index.created_at), row.index.id


def _place(cursor: str) -> tuple[int, str]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise _invalid("cursor: is not one that this server gave")
    return int(match["order"]), match["share_id"]


def _invalid(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
