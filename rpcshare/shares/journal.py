"""The objects of one share in the store: reading, appending, trimming, removing.

What makes concurrent writers safe, here and in :mod:`~rpcshare.shares.open_share`:

- An entry is written only if there is none of its number, so the store orders all writers.
- Entries up to n are deleted only once snapshot n is there, and only after a grace period.
- When a share is deleted, its last entries become tombstones, and are deleted after a grace period: a
  writer that has not heard of the last of them finds its next number taken.
- A head is never removed, only replaced if it has not changed.
- Whatever is deleted has the generation in its key, and a generation is never used twice.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from rpcshare.shares import objects
from rpcshare.shares.entry_text import LoggedSync
from rpcshare.shares.objects import Head, LogEntry, LogSnapshot
from rpcshare.storage import (
    AtomicStore,
    ObjectStore,
    PreconditionFailedError,
    Put,
    StoreError,
)

__all__ = ["Journal", "StoredHead", "Survey", "read_head"]

_ATTEMPTS = 10  # at replacing a head, which others hardly ever do at the same time
_FENCED = 1000
"""Entries: more than a log gets while a writer relies on what it knows, which is 20 s."""

_FENCED_AT_ONCE = 16
_LARGE = 256 * 1024  # bytes of a body, not packed, that are decoded in a thread, not on the event loop

T = TypeVar("T")


class StoredHead(msgspec.Struct, frozen=True):
    """A head and the etag that it has in the store."""

    head: Head
    etag: str


class Survey(msgspec.Struct, frozen=True):
    """What a listing shows of a generation behind some entry."""

    holds_all_before: bool
    """Whether the entry is there, or there was none. If not, a snapshot replaced it, or it is lost."""
    first_entry: int | None
    last_entry: int | None
    snapshots: tuple[int, ...]
    """The numbers of all snapshots, ascending."""
    head_etag: str | None
    etag_before: str | None = None
    """That of the entry itself; None if it is not there."""
    last_etag: str | None = None
    """That of the last entry."""
    snapshot_etag: str | None = None
    """That of the last snapshot."""
    snapshot_etag_before: str | None = None
    """That of the snapshot of the entry's own number; None if it is not there."""


async def read_head(store: ObjectStore, share_id: str) -> StoredHead | None:
    """Return the head of a share, which may be that of a deleted one; None if there was never one.

    Raises:
        StoreError: the store failed.
    """
    found = await store.get(objects.head_key(share_id))
    return StoredHead(objects.decode_head(found.body), found.etag) if found else None


class Journal:
    """One generation of a share, as the store has it. Every method raises StoreError."""

    def __init__(self, store: ObjectStore, share_id: str, generation: str) -> None:
        self.share_id = share_id
        self.generation = generation
        self._store = store
        self._log = objects.log_prefix(share_id, generation)
        self._snapshots = objects.snapshot_prefix(share_id, generation)
        self._head = objects.head_key(share_id)
        self._scheduled: str | None = None
        """The key of what schedules the removal of the share."""

    async def survey(self, after: int = 0) -> Survey:
        """Look at what there is behind entry ``after``, in one listing.

        The keys of a share are in this order: log entries, snapshots, (other generations,) head.
        """
        entries: list[int] = []
        snapshots: list[int] = []
        head_etag = etag_before = last_etag = snapshot_etag = snapshot_etag_before = None
        start = objects.numbered(self._log, max(after - 1, 0))
        async for key, etag, _ in self._store.list(f"share/{self.share_id}/", start_after=start):
            if key.startswith(self._log):
                number = objects.number_of(key)
                if number > after:
                    entries.append(number)
                    last_etag = etag
                else:
                    etag_before = etag
            elif key.startswith(self._snapshots):
                snapshots.append(objects.number_of(key))
                snapshot_etag = etag
                if snapshots[-1] == after:
                    snapshot_etag_before = etag
            elif key == self._head:
                head_etag = etag
        return Survey(
            holds_all_before=after == 0 or etag_before is not None,
            first_entry=entries[0] if entries else None,
            last_entry=entries[-1] if entries else None,
            snapshots=tuple(snapshots),
            head_etag=head_etag,
            etag_before=etag_before,
            last_etag=last_etag,
            snapshot_etag=snapshot_etag,
            snapshot_etag_before=snapshot_etag_before,
        )

    async def entries(self, after: int) -> AsyncIterator[tuple[int, LogEntry]]:
        """Yield the entries behind number ``after`` with their numbers, in order."""
        start = objects.numbered(self._log, after)
        async for found in self._store.scan(self._log, start_after=start):
            key, held, etag = found.key, [found.body], found.etag
            del found
            yield objects.number_of(key), await _decoded(held, etag)

    async def syncs_of(self, entry: LogEntry, distinct: Sequence[bytes]) -> list[LoggedSync]:
        """Return what :meth:`LogEntry.syncs` does. ``distinct`` must not change meanwhile."""
        if entry.size < _LARGE:
            return entry.syncs(distinct)
        return await asyncio.to_thread(entry.syncs, distinct)

    async def read_entry(self, number: int) -> LogEntry | None:
        """Return an entry, or None if it is not there."""
        found = await self._store.get(objects.numbered(self._log, number))
        return await _decoded([found.body], found.etag) if found else None

    async def read_entries(self, numbers: Sequence[int]) -> list[LogEntry | None]:
        """Return some entries, each as :meth:`read_entry` does, at once."""
        if len(numbers) == 1:
            return [await self.read_entry(numbers[0])]
        return await asyncio.gather(*map(self.read_entry, numbers))

    def append(self, number: int, body: bytes) -> Awaitable[str]:
        """Write an entry; await its etag.

        Raises:
            PreconditionFailedError: there is an entry of this number.
        """
        return self._store.put(objects.numbered(self._log, number), body, if_absent=True)

    async def read_snapshot(self, number: int) -> tuple[LogSnapshot, int] | None:
        """Return a snapshot and how many bytes it takes, or None if it is not there."""
        found = await self._store.get(objects.numbered(self._snapshots, number))
        if found is None:
            return None
        held, size = [found.body], len(found.body)
        del found
        return await _in_thread_if_large(objects.decode_snapshot, held), size

    async def write_snapshot(self, number: int, snapshot: LogSnapshot) -> int:
        """Write what the entries up to ``number`` make; return how many bytes that takes."""
        body = await asyncio.to_thread(lambda: objects.pack(objects.encode_snapshot(snapshot)))
        await self._store.put(objects.numbered(self._snapshots, number), body)
        return len(body)

    async def live_head(self) -> StoredHead | None:
        """Return the head of the share if this generation is the live one, else None."""
        found = await read_head(self._store, self.share_id)
        if found is None or found.head.deleted or found.head.generation != self.generation:
            return None
        return found

    async def replace_head(self, head: Head, etag: str) -> str:
        """Write ``head`` over the one that has ``etag``, and return its own.

        Raises:
            PreconditionFailedError: there is another by now.
        """
        return await self._store.put(self._head, objects.encode_head(head), if_match=etag)

    async def prepare(self) -> None:
        """Have a head in the store that can be replaced.

        Raises:
            PreconditionFailedError: the id is another share's by now, or the share is deleted.
        """

    async def is_live(self, head_etag: str | None, after: int) -> bool:
        """Whether the share is not deleted: for who has written something that would outlive it."""
        survey = await self.survey(after)
        if survey.head_etag != head_etag and await self.live_head() is None:
            return False
        if survey.last_entry is None:
            return True
        last = await self.read_entry(survey.last_entry)
        return last is None or not last.is_tombstone

    async def trim(self, number: int) -> None:
        """Delete the entries and snapshots that snapshot ``number`` makes superfluous, if it is there."""
        entries = [info.key async for info in self._store.list(self._log)]
        # Right before what is deleted because of them.
        snapshots = [info.key async for info in self._store.list(self._snapshots)]
        if not any(objects.number_of(key) >= number for key in snapshots):
            # The store is not what it was: an older copy has been put in its place, which needs them.
            return
        keys = [key for key in entries if objects.number_of(key) <= number]
        keys += [key for key in snapshots if objects.number_of(key) < number]
        await self._store.delete(keys)

    async def sweep(self) -> None:
        """Delete what is left of the log of a dead generation."""
        await self._store.delete([info.key async for info in self._store.list(self._log)])

    async def delete_entry(self, number: int) -> None:
        """Delete an entry that nobody needs: of a dead generation."""
        await self._store.delete([objects.numbered(self._log, number)])

    async def delete_snapshot(self, number: int) -> None:
        """Delete a snapshot that nobody needs: of a dead generation."""
        await self._store.delete([objects.numbered(self._snapshots, number)])

    async def end(
        self, number: int, body: bytes, head: Head, head_etag: str, *, now: int, is_shared: bool
    ) -> bool:
        """Write the tombstone ``body`` as an entry and remove the share, all or nothing, if the store can.

        Return whether it can; else nothing is done.

        Args:
            number: of the entry.
            body: of the entry.
            head: of the share.
            head_etag: that it has in the store.
            now: milliseconds since the epoch, which decides whether the share has expired.
            is_shared: whether others write to the store.

        Raises:
            PreconditionFailedError: there is an entry of this number, or another head.
        """
        if not (isinstance(self._store, AtomicStore) and self._store.is_atomic):
            return False
        fences, content = await self._content_but(number, fences=_FENCED if is_shared else 0)
        puts = [
            *(Put(key, body) for key in fences),
            Put(objects.numbered(self._log, number), body, if_absent=True),
            Put(self._head, objects.encode_head(self._dead(head, now)), if_match=head_etag),
        ]
        index = objects.index_key(self.share_id, self.generation)
        await self._store.apply(puts, [*content, index])
        return True

    async def schedule_removal(self, now: int) -> None:
        """Have the content removed in the background should the share be ended and :meth:`remove` fail.

        Where the share is not ended, this does nothing.

        Args:
            now: milliseconds since the epoch.
        """
        if self._scheduled is None:
            key = objects.expiry_key(self.share_id, now)
            await self._store.put(key, b"")
            self._scheduled = key

    async def _content_but(self, tombstone: int, *, fences: int) -> tuple[list[str], list[str]]:
        """Return the keys of all that there is of the share but head, row and the entry ``tombstone``.

        Returns:
            Those of the last entries, as many as ``fences``, and those of all else.
        """
        keep = objects.numbered(self._log, tombstone)
        entries = [info.key async for info in self._store.list(self._log) if info.key != keep]
        snapshots = [info.key async for info in self._store.list(self._snapshots)]
        first = max(len(entries) - fences, 0)
        # Where an upgrade was interrupted, or could not take over all, there still is what it was made of.
        aside = objects.aside_key(self.share_id)
        return entries[first:], [*entries[:first], *snapshots, aside]

    def _dead(self, head: Head, now: int) -> Head:
        """Return what stands in the place of ``head`` once the share is removed."""
        return Head(
            objects.VERSION,
            self.generation,
            owner=head.owner,
            deleted=True,
            expired=head.has_expired(now),
        )

    async def remove(self, tombstone: int, *, now: int, is_shared: bool) -> None:
        """Remove the share, whose log ends with ``tombstone``. May be called again until it returns.

        The head stands until all content is gone, so that an interrupted removal is found and
        finished; the tombstone stays, for writers that have not heard of it.

        Args:
            tombstone: the number of the last entry.
            now: milliseconds since the epoch, which decides whether the share has expired.
            is_shared: whether others write to the store.
        """
        fences, content = await self._content_but(tombstone, fences=_FENCED if is_shared else 0)
        # Where the head says already that the share is deleted, they are tombstones.
        if fences and await self.live_head() is not None:
            body = objects.encode_tombstone(secrets.token_hex(8))
            for start in range(0, len(fences), _FENCED_AT_ONCE):
                some = fences[start : start + _FENCED_AT_ONCE]
                await asyncio.gather(*(self._store.put(key, body) for key in some))
        await self._store.delete(content)
        await self._store.delete([objects.index_key(self.share_id, self.generation)])
        await self._end_head(now)
        if self._scheduled is not None:
            await self._store.delete([self._scheduled])
            self._scheduled = None

    async def _end_head(self, now: int) -> None:
        # Until the head is that of a deleted share: another node may be changing a setting.
        for _ in range(_ATTEMPTS):
            found = await self.live_head()
            if found is None:
                return
            with suppress(PreconditionFailedError):
                await self.replace_head(self._dead(found.head, now), found.etag)
                return
        raise StoreError(
            f"the head of share {self.share_id} cannot be replaced: the store says that it changes"
        )


async def _decoded(held: list[bytes], etag: str) -> LogEntry:
    entry = await _in_thread_if_large(objects.decode_entry, held)
    entry.etag = etag
    return entry


async def _in_thread_if_large(decode: Callable[[bytes], T], held: list[bytes]) -> T:
    """Return what the one body in ``held`` stands for. It is taken out, so that it is not held meanwhile."""
    if objects.unpacked_size(held[0]) < _LARGE:
        return decode(held.pop())
    return await asyncio.to_thread(lambda: decode(held.pop()))
