"""What the open shares of a node have in common."""

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from rpcshare.auth.caller import Caller
from rpcshare.broadcast import Broadcaster
from rpcshare.errors import ShareError
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.shares.delayed_deletes import DelayedDeletes
from rpcshare.shares.node_inbox import NodeInbox
from rpcshare.shares.objects import Head
from rpcshare.shares.old_versions import OldVersions
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import Item
from rpcshare.storage import ObjectStore

__all__ = ["LogSettings", "NodeContext", "ShareObserver", "WatchedShare", "wall_clock"]


def wall_clock() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How logs are kept. Times are seconds, sizes bytes."""

    max_share_size: int = 256 * 2**20
    """How large a share may become, a repeated diff counted as often as it comes; 0: any size."""
    max_share_items: int = 200_000
    """How many messages, parts, diffs and models a share, and a batch, may have; 0: any number."""
    grace: float = 60.0
    """How long what is superfluous stays in the store."""
    trusted_for: float = 20.0
    """How long this node may write without looking at what others did. On every node well below the
    grace period of every other."""
    entry_size: int = 4 * 2**20
    """How large a log entry may become by adding another sync to it."""
    entry_syncs: int = 500
    """How many syncs a log entry may hold."""
    compaction: CompactionPolicy = CompactionPolicy()


class WatchedShare(Protocol):
    """What an observer of an open share sees of it."""

    share_id: str
    head: Head
    state: ShareState
    entry: int
    is_ended: bool

    @property
    def head_etag(self) -> str | None:
        """That the head has in the store; None: there is no head yet."""
        ...

    @property
    def log_etag(self) -> str | None:
        """That of the last entry, or of the snapshot in its place; None: not known, or there is neither."""
        ...

    @property
    def footprint(self) -> int:
        """About how many bytes of memory it takes."""
        ...

    def review_subscriptions(self, refusal: Callable[[Caller], ShareError | None]) -> None:
        """End the subscriptions of those for whom ``refusal`` returns why."""
        ...


class ShareObserver(Protocol):
    """Who keeps the open shares."""

    def log_changed(self, log: WatchedShare, items: Iterable[Item] | None, *, by_this_node: bool) -> None:
        """Hear that ``log`` has a new state, and whether this node wrote what led to it.

        ``items`` are those of the new entry; None: any may have changed.
        """
        ...

    def access_changed(self, log: WatchedShare) -> None:
        """Hear that the settings in the head of ``log`` are others."""
        ...

    def log_ended(self, log: WatchedShare) -> None:
        """Hear that the share of ``log`` is deleted."""
        ...


class NodeContext(msgspec.Struct, frozen=True):
    """What an open share works with."""

    store: ObjectStore
    broadcaster: Broadcaster
    delayed_deletes: DelayedDeletes
    settings: LogSettings
    clock: Callable[[], int]
    """Milliseconds since the epoch."""
    observer: ShareObserver
    inbox: NodeInbox
    is_shared: bool = False
    """Whether others write to the store."""
    old_versions: OldVersions = msgspec.field(default_factory=OldVersions)
    """What slow readers hold."""
