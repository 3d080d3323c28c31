"""Keeping the log of a share short: snapshots, and the end of what they replace.

A snapshot is made when the syncs behind the last one have carried a multiple of the bytes that it will
take in the store. So what is written for a byte that a sync carries is bounded, and it is the less the
better it compresses, while opening a share reads a bounded multiple of its size. None is made of what the
log says as shortly: behind a share that has been made with all it holds, or that has grown in few syncs.
"""

import asyncio
import logging
from functools import partial

import msgspec

from rpcshare.shares.delayed_deletes import DelayedDeletes
from rpcshare.shares.journal import Journal
from rpcshare.shares.objects import LogSnapshot
from rpcshare.shares.state import ShareState
from rpcshare.storage import StoreError

__all__ = ["CompactionPolicy", "Compactor"]

logger = logging.getLogger(__name__)


class CompactionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a log is long enough for a snapshot.

    That is once it has outgrown ``tail_ratio``, and either of the other two as well; or, whatever a
    snapshot costs, once it has several times ``tail_entries``.
    """

    tail_size: int = 256 * 1024
    """Bytes of log behind the last snapshot, not compressed, that are not too many; and bytes that readers
    take in beyond those of a new snapshot, with some for each entry, that are not either."""
    tail_ratio: float = 2.0
    """How many times as large as a snapshot in the store the log behind the last one, not compressed, has
    to be. What is written for snapshots is this part of what syncs carry: 2.0 makes half of it at most."""
    tail_entries: int = 2000
    """Entries behind the last snapshot that are not too many."""


_TOO_MANY = 5  # times tail_entries

# Bytes of an entry that take about as long to read as there is any entry at all.
_ENTRY_OVERHEAD = 4096

# Of a snapshot, as far as it counts here: when it takes next to nothing in the store, what it takes to
# make one is the work.
_BEST_PACKING = 0.25


class Compactor:
    """Makes the snapshots of one open share, in the background."""

    def __init__(self, journal: Journal, delayed_deletes: DelayedDeletes, policy: CompactionPolicy) -> None:
        self._journal = journal
        self._delayed_deletes = delayed_deletes
        self._policy = policy
        self._entries = 0  # behind the last snapshot
        self._size = 0  # of them, in bytes, not compressed
        self._holds = 0  # bytes of the share in the last snapshot
        self._packing = _BEST_PACKING  # how large a snapshot is in the store, for a byte that it holds
        self._failed_at = 0, 0  # _entries and _size when a snapshot last could not be written
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a snapshot is being made."""
        return self._task is not None

    def reset(self, entries: int, size: int, snapshot_size: int, snapshot_holds: int) -> None:
        """Take note of the last snapshot, and of the log behind it, as they were read."""
        self._entries, self._size = entries, size
        self._set_snapshot(snapshot_size, snapshot_holds)

    def added(self, size: int) -> None:
        """Take note of a new entry of ``size`` bytes."""
        self._entries += 1
        self._size += size

    def start_if_due(self, entry: int, state: ShareState, head_etag: str | None) -> None:
        """Begin a snapshot of ``state``, which entries up to ``entry`` make, if it is time."""
        if self.is_running or not self._is_due(state.content.size):
            return
        snapshot = LogSnapshot(
            state.sync_count, state.last_updated, state.content.items(), state.content.reverts.removed
        )
        tail = self._entries, self._size
        task = self._compact(entry, snapshot, state.content.size, tail, head_etag)
        self._task = asyncio.create_task(task)

    def _is_due(self, share_size: int) -> bool:
        policy = self._policy
        failed_entries, failed_size = self._failed_at
        if self._size <= 2 * failed_size and self._entries <= 2 * failed_entries:
            return False
        if self._entries > _TOO_MANY * policy.tail_entries:
            return True
        spared = self._holds + self._size - share_size + _ENTRY_OVERHEAD * self._entries
        is_long = min(self._size, spared) > policy.tail_size or self._entries > policy.tail_entries
        return is_long and self._size > policy.tail_ratio * self._packing * share_size

    def _set_snapshot(self, size: int, holds: int) -> None:
        self._holds = holds
        self._packing = min(max(size / (holds or 1), _BEST_PACKING), 1.0)

    async def finish(self) -> None:
        """Wait until no snapshot is being made."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _compact(
        self, entry: int, snapshot: LogSnapshot, size: int, tail: tuple[int, int], head_etag: str | None
    ) -> None:
        journal = self._journal
        try:
            packed_size = await journal.write_snapshot(entry, snapshot)
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
        self._set_snapshot(packed_size, size)
        self._failed_at = 0, 0
        self._delayed_deletes.later(journal.share_id, partial(journal.trim, entry))
