"""A session in a file, checked by the server's own rules before anything is sent."""

import msgspec

from rpcshare.errors import ShareError
from rpcshare.shares.syncdata import parse_batch
from rpcshare.transcripts import LocatedItem, SessionFile, SessionFileError, SyncData, read_session_file

__all__ = ["SizedItem", "read_items", "sized_items"]


class SizedItem(msgspec.Struct, frozen=True):
    """A SyncData that the server will accept."""

    item: SyncData
    sizes: tuple[int, ...]
    """In bytes of JSON: of its ``data``, or of each of its values where that is a list."""


def read_items(content: bytes) -> list[SizedItem]:
    """Return the SyncData that the content of a file holds.

    Raises:
        SessionFileError: it holds no session, or one of its items is not as it must be.
    """
    return sized_items(read_session_file(content))


def sized_items(session: SessionFile) -> list[SizedItem]:
    """Return what is sent of a session.

    Raises:
        SessionFileError: one of its items is not as it must be.
    """
    return [_sized(each) for each in session.items]


def _sized(located: LocatedItem) -> SizedItem:
    """Check one SyncData by the server's own rules."""
    item, place = located
    try:
        (parsed,) = parse_batch([item]).items
    except ShareError as exc:
        where, _, why = exc.message.partition(": ")
        raise SessionFileError(f"{place}{where.removeprefix('data[0]')}: {why}") from None
    assert isinstance(item, dict)  # noqa: S101 -- or it would not have parsed
    return SizedItem(item, tuple(len(key) + len(body) for key, body in parsed.values))
