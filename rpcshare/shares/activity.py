"""What a node has done since it was started, in numbers."""

import msgspec

__all__ = ["Activity"]


class Activity(msgspec.Struct):
    """Counts that only grow; the service adds to them."""

    created: int = 0
    """Calls that made a share, or found the one that the caller had made."""
    synced: int = 0
    """Syncs that are durable."""
    synced_bytes: int = 0
    """Of their items, as JSON."""
    deleted: int = 0
    """Calls that deleted a share."""
    store_errors: int = 0
    """Operations that failed because the store did."""
