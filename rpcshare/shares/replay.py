"""From the objects in the store to the share that they make."""

from collections.abc import Iterable

import msgspec

from rpcshare.shares.events import Sync
from rpcshare.shares.journal import Journal
from rpcshare.shares.objects import Head, LoggedSync
from rpcshare.shares.state import ShareState
from rpcshare.shares.subscriptions import RecentSyncs
from rpcshare.storage import StoreError

__all__ = ["Replay", "replay"]

_ATTEMPTS = 5


class Replay(msgspec.Struct):
    """A share as it was read."""

    state: ShareState
    entry: int
    """The number of the last entry."""
    entry_id: str = ""
    """That of the last entry; empty if all of it is in the snapshot."""
    entry_etag: str | None = None
    """That of the last entry; None if it is not there any more, and a snapshot in its place."""
    snapshot: int = 0
    """The number of the snapshot."""
    snapshot_etag: str | None = None
    """That of the snapshot; None if there is none."""
    tail_entries: int = 0
    """How many entries there are behind the snapshot."""
    tail_size: int = 0
    """Their bytes, not compressed."""
    snapshot_size: int = 0
    """How many bytes the snapshot takes in the store."""
    snapshot_holds: int = 0
    """How many bytes the share had when it was made."""
    recent: Iterable[Sync] = ()
    """The last syncs, without a gap."""
    labelled: list[tuple[str, int, int]] = []
    """Of the syncs behind the snapshot that have a label: that, the entry, and the syncCount."""
    is_as_installed: bool = False
    """There is no snapshot but the one that it was installed with."""
    is_ended: bool = False
    """The share is deleted."""
    tombstone: int | None = None
    """The entry that says so; None if all that was left has been removed."""
    superfluous_to: int | None = None
    """Entries or snapshots are left that the snapshot of this number replaces."""

    def apply(self, sync: LoggedSync) -> None:
        """Take in a sync of the last entry."""
        self.state.apply(sync.items, sync.at)
        if sync.label:
            self.labelled.append((sync.label, self.entry, self.state.sync_count))


async def replay(journal: Journal, head: Head, head_etag: str | None) -> Replay:
    """Read the newest snapshot of a share, and the log behind it.

    Args:
        journal: where they are.
        head: of the share.
        head_etag: that it has in the store; None if it is not there.

    Raises:
        StoreError: the store failed, or holds something that cannot be read.
    """
    for _ in range(_ATTEMPTS):
        found = await _replay_once(journal, head, head_etag)
        if found is not None:
            return found
    raise StoreError(f"the log of share {journal.share_id} has a gap")


async def _replay_once(journal: Journal, head: Head, head_etag: str | None) -> Replay | None:
    """Return None where something was deleted between listing and reading it."""
    survey = await journal.survey()
    found = Replay(ShareState(journal.share_id, head.session_id, head.created_at), entry=0)
    if survey.head_etag != head_etag and await journal.live_head() is None:
        return _ended(found, None)
    if survey.snapshots:
        number = survey.snapshots[-1]
        found.is_as_installed = number == 0
        read = await journal.read_snapshot(number)
        if read is None:
            return await _ended_if_tombstone(journal, found, survey.last_entry)
        snapshot, found.snapshot_size = read
        found.state.restore(snapshot.items, snapshot.sync_count, snapshot.last_updated, snapshot.removed)
        found.entry = number
        found.entry_etag = survey.last_etag if survey.last_entry == number else None
        found.snapshot, found.snapshot_etag = number, survey.snapshot_etag
        found.snapshot_holds = found.state.content.size
        is_left = survey.first_entry is not None and survey.first_entry <= number
        if is_left or len(survey.snapshots) > 1:
            found.superfluous_to = number
    recent = RecentSyncs()
    async for number, entry in journal.entries(after=found.entry):
        if number != found.entry + 1:
            return await _ended_if_tombstone(journal, found, survey.last_entry)
        if entry.is_tombstone:
            return _ended(found, number)
        found.entry, found.entry_id, found.entry_etag = number, entry.id, entry.etag
        syncs = await journal.syncs_of(entry, found.state.content.diffs.distinct)
        found.tail_entries += 1
        found.tail_size += entry.size
        del entry  # which holds its texts a second time
        for sync in syncs:
            found.apply(sync)
            recent.add(Sync(journal.share_id, found.state.sync_count, sync.items))
    if survey.last_entry is not None and found.entry < survey.last_entry:
        return await _ended_if_tombstone(journal, found, survey.last_entry)
    found.recent = recent
    return found


async def _ended_if_tombstone(journal: Journal, found: Replay, last: int | None) -> Replay | None:
    # A removal that was interrupted leaves any part of a log, but its tombstone for certain.
    if last is None:
        return None
    entry = await journal.read_entry(last)
    if entry is None or not entry.is_tombstone:
        return None
    return _ended(found, last)


def _ended(found: Replay, tombstone: int | None) -> Replay:
    found.is_ended = True
    found.tombstone = tombstone
    return found
