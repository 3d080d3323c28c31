"""The failures that several parts of the domain tell their callers of."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.activity import Activity
from rpcshare.storage import StoreError

__all__ = [
    "listing_unavailable",
    "search_too_long",
    "search_unavailable",
    "share_gone",
    "share_not_found",
    "share_too_large",
    "storage_unavailable",
    "storing",
    "temporary_file_failed",
    "too_many_items",
]

logger = logging.getLogger(__name__)

_RETRY_AFTER = 2.0  # seconds


def share_not_found() -> ShareError:
    """Return the error for an id that no share has. Its message is exact (PROTOCOL.md, "Errors")."""
    return ShareError(ErrorCode.SHARE_NOT_FOUND, "Share not found")


def share_gone() -> ShareError:
    """Return the error for a share whose time is over. Its message is exact, too."""
    return ShareError(ErrorCode.SHARE_GONE, "Share expired")


def share_too_large(limit: int) -> ShareError:
    """Return the error for what would make a share larger than ``limit`` bytes."""
    return ShareError(ErrorCode.PAYLOAD_TOO_LARGE, f"A share may be at most {limit} bytes")


def too_many_items(limit: int) -> ShareError:
    """Return the error for what would make a share hold more than ``limit`` items."""
    message = f"A share may have at most {limit:,} messages, parts, diffs and models"
    return ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)


def storage_unavailable(cause: StoreError | None = None, *, why: str = "") -> ShareError:
    """Return the error for a store that failed, and log why: that is for the operator to know.

    Args:
        cause: what the store raised.
        why: what callers are told of it, if they are operators, too.
    """
    if cause is not None:
        logger.warning("The store failed: %s", cause)
    message = f"Storage unavailable: {why}" if why else "Storage unavailable"
    return ShareError(ErrorCode.STORAGE_UNAVAILABLE, message, retry_after=_RETRY_AFTER)


def temporary_file_failed(cause: OSError | ValueError) -> ShareError:
    """Return the error for a temporary file that cannot be made, written or read; log why."""
    logger.warning("A temporary file failed: %s", cause)
    return ShareError(ErrorCode.STORAGE_UNAVAILABLE, "Storage unavailable", retry_after=_RETRY_AFTER)


def listing_unavailable(cause: DatabaseError) -> ShareError:
    """Return the error for a listing whose database failed; log why."""
    logger.warning("A listing failed: %s", cause)
    message = "The list of shares is unavailable"
    return ShareError(ErrorCode.STORAGE_UNAVAILABLE, message, retry_after=_RETRY_AFTER)


def search_too_long() -> ShareError:
    """Return the error for a query that takes too long, which it would the next time, too."""
    message = "query: takes too long to look for: add a word, or a filter such as after:2026-11-01"
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)


def search_unavailable(cause: DatabaseError) -> ShareError:
    """Return the error for a search whose database failed; log why."""
    logger.warning("A search failed: %s", cause)
    return ShareError(ErrorCode.STORAGE_UNAVAILABLE, "Search unavailable", retry_after=_RETRY_AFTER)


@contextmanager
def storing(activity: Activity) -> Iterator[None]:
    """Tell the caller of a failure of the store within, and count it in ``activity``."""
    try:
        yield
    except StoreError as exc:
        activity.store_errors += 1
        raise storage_unavailable(exc) from exc
    except ShareError as exc:
        activity.store_errors += exc.code is ErrorCode.STORAGE_UNAVAILABLE
        raise
