"""Keeping the log of a share short: snapshots, and the end of what they replace.

A snapshot costs as much as the share is large, and is made when the log behind the last one has grown
past a multiple of that. So a byte that is logged is written a bounded number of times, and opening a
share reads a bounded multiple of its size.
"""

import asyncio
import logging
from functools import partial

import msgspec

from rpcshare.shares.journal import Journal
from rpcshare.shares.objects import LogSnapshot
from rpcshare.shares.state import ShareState
from rpcshare.shares.sweeper import Sweeper
from rpcshare.storage import StoreError

__all__ = ["CompactionPolicy", "Compactor"]

logger = logging.getLogger(__name__)


class CompactionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a log is long enough for a snapshot: past any of its limits."""

    tail_size: int = 256 * 1024
    """Bytes of log behind the last snapshot that are never too many."""
    tail_ratio: float = 2.0
    """How many times as large as the share the log behind the last snapshot may be."""
    tail_entries: int = 2000
    """How many entries may be behind the last snapshot."""


class Compactor:
    """Makes the snapshots of one open share, in the background."""

    def __init__(self, journal: Journal, sweeper: Sweeper, policy: CompactionPolicy) -> None:
        self._journal = journal
        self._sweeper = sweeper
        self._policy = policy
        self._entries = 0  # behind the last snapshot
        self._size = 0  # of them, in bytes, not compressed
        self._failed_at = 0, 0  # _entries and _size when a snapshot last could not be written
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a snapshot is being made."""
        return self._task is not None

    def reset(self, entries: int, size: int) -> None:
        """Take note of the log behind the last snapshot, as it was read."""
        self._entries, self._size = entries, size

    def added(self, size: int) -> None:
        """Take note of a new entry of ``size`` bytes."""
        self._entries += 1
        self._size += size

    def start_if_due(self, entry: int, state: ShareState, head_etag: str) -> None:
        """Begin a snapshot of ``state``, which entries up to ``entry`` make, if it is time."""
        policy = self._policy
        failed_entries, failed_size = self._failed_at
        size_limit = max(policy.tail_size, policy.tail_ratio * state.content.size, 2 * failed_size)
        entries_limit = max(policy.tail_entries, 2 * failed_entries)
        if self.is_running or (self._size <= size_limit and self._entries <= entries_limit):
            return
        snapshot = LogSnapshot(state.sync_count, state.last_updated, state.content.items())
        tail = self._entries, self._size
        self._task = asyncio.create_task(self._compact(entry, snapshot, tail, head_etag))

    async def finish(self) -> None:
        """Wait until no snapshot is being made."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _compact(
        self, entry: int, snapshot: LogSnapshot, tail: tuple[int, int], head_etag: str
    ) -> None:
        journal = self._journal
        try:
            await journal.write_snapshot(entry, snapshot)
            # A node that removes the share may have listed its objects before this one was there.
            if not await journal.is_live(head_etag, after=entry):
                await journal.delete_snapshot(entry)
                return
        except StoreError as exc:
            logger.warning("Could not write a snapshot of share %s: %s", journal.share_id, exc)
            self._failed_at = tail
            return
        finally:
            self._task = None
        # The log may have been read anew in the meantime, which counts from another snapshot.
        self._entries = max(0, self._entries - tail[0])
        self._size = max(0, self._size - tail[1])
        self._failed_at = 0, 0
        self._sweeper.later(journal.share_id, partial(journal.trim, entry))
