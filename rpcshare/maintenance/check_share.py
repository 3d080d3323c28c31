"""One look at all that is stored under one id: is it a share, and is it whole? Changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial

import msgspec

from rpcshare.maintenance.findings import Finding, Problem
from rpcshare.maintenance.stored_keys import Shelf
from rpcshare.shares import objects
from rpcshare.shares.context import wall_clock
from rpcshare.shares.expiry import schedule
from rpcshare.shares.journal import Journal, StoredHead, read_head
from rpcshare.shares.legacy_layout import LegacyShare, decode_legacy, decode_legacy_index, read_legacy
from rpcshare.shares.replay import replay
from rpcshare.storage import ObjectStore, StoreError

__all__ = ["Look", "look_at"]


class Look(msgspec.Struct):
    """What there is to be seen."""

    share_id: str
    is_share: bool = False
    is_older: bool = False
    """It is a share in the older layout."""
    findings: list[Finding] = []
    repairs: list[tuple[Finding, Callable[[], Awaitable[bool]]]] = []
    """What puts a finding right, and returns whether it has."""
    leftovers: list[tuple[Finding, list[str]]] = []
    """The keys that a finding is about, which can be removed."""
    superfluous: list[str] = []
    """The keys of what a server removes in the course of things."""

    def add(self, place: str, problem: Problem, detail: str) -> Finding:
        """Take note of something that is wrong."""
        finding = Finding(place, problem, detail)
        self.findings.append(finding)
        return finding

    def add_leftover(self, place: str, of_what: str, keys: Iterable[str]) -> None:
        """Take note of objects that can be removed, if there are any."""
        if listed := list(keys):
            count = f"{len(listed)} object{'s' if len(listed) > 1 else ''}"
            self.leftovers.append((self.add(place, Problem.LEFTOVER, f"{count} {of_what}"), listed))


async def look_at(store: ObjectStore, shelf: Shelf, rows: Collection[str]) -> Look:
    """Look at what is on a shelf.

    Args:
        store: where it is.
        shelf: what there is. What a server has removed since is not missed.
        rows: the generations of which there is a row for listings.

    Raises:
        StoreError: the store failed.
    """
    look = Look(shelf.share_id)
    for key in shelf.unknown:
        look.add(key, Problem.UNKNOWN, "nothing has such a key")
    try:
        if shelf.older_key is not None:
            await _look_at_legacy(store, shelf.share_id, shelf.older_key, look)
        elif not shelf.unknown:  # or what is not known might be of the share
            await _look_at_logs(store, shelf, rows, look)
    except StoreError as exc:
        await store.check()  # that answers, so it is the share
        look.add(f"share/{shelf.share_id}", Problem.DAMAGED, str(exc))
    return look


async def _look_at_logs(store: ObjectStore, shelf: Shelf, rows: Collection[str], look: Look) -> None:
    place = f"share/{shelf.share_id}"
    found = await read_head(store, shelf.share_id)
    older = await read_legacy(store, shelf.share_id) if found is None else None
    if older is not None:
        begun = objects.numbered(objects.snapshot_prefix(shelf.share_id, older.head.generation), 0)
        if [key for generation in shelf.generations for key in shelf.keys(generation)] not in ([], [begun]):
            look.add(place, Problem.UNKNOWN, "there is a log, but the share is still of the older layout")
        return  # an upgrade that was interrupted is done again by the next write
    if found is None:
        if shelf.generations:
            look.add(place, Problem.DAMAGED, "there is a log, but no head")
            return
        await _look_at_rows(store, shelf.share_id, rows, None, look)
        return
    head = found.head
    for generation in sorted({*shelf.generations, head.generation}):
        if generation == head.generation and not head.deleted:
            await _look_at_live(store, shelf, found, look)
        elif generation not in shelf.snapshots and await _are_tombstones(store, shelf.keys(generation)):
            look.superfluous += shelf.keys(generation)
        else:
            of_what = "of a share that is deleted"
            look.add_leftover(f"{place}/{generation}", of_what, shelf.keys(generation))
    await _look_at_rows(store, shelf.share_id, rows, None if head.deleted else head.generation, look)


async def _are_tombstones(store: ObjectStore, keys: Iterable[str]) -> bool:
    for key in keys:
        found = await store.get(key)
        try:
            if found is not None and not objects.decode_entry(found.body).is_tombstone:
                return False
        except StoreError:
            return False
    return True


async def _look_at_live(store: ObjectStore, shelf: Shelf, found: StoredHead, look: Look) -> None:
    head = found.head
    journal = Journal(store, shelf.share_id, head.generation)
    place = f"share/{shelf.share_id}/{head.generation}"
    try:
        replayed = await replay(journal, head, found.etag)
    except StoreError as exc:
        await store.check()  # that answers, so it is the share
        look.add(place, Problem.DAMAGED, await _first_fault(store, shelf, head.generation) or str(exc))
        return
    if replayed.is_ended:
        if replayed.tombstone is not None:
            finding = look.add(
                place, Problem.UNFINISHED, "the share is deleted, but not all of it is removed"
            )
            look.repairs.append((finding, partial(_finish_removal, journal, replayed.tombstone)))
            look.superfluous += shelf.log_keys(head.generation)
        return
    look.is_share = True
    newest = max(shelf.snapshots.get(head.generation, ()), default=-1)
    for key in shelf.keys(head.generation):
        is_snapshot = key.startswith(objects.snapshot_prefix(shelf.share_id, head.generation))
        if objects.number_of(key) < newest + (not is_snapshot):
            look.superfluous.append(key)
    if head.expires_at is not None:
        key = objects.expiry_key(shelf.share_id, head.expires_at)
        if await store.get(key) is None:
            finding = look.add(key, Problem.INDEX, "is missing, so the share would stay when it expires")
            look.repairs.append((finding, partial(_schedule, store, shelf.share_id, head.expires_at)))


async def _schedule(store: ObjectStore, share_id: str, expires_at: int) -> bool:
    await schedule(store, share_id, expires_at)
    return True


async def _finish_removal(journal: Journal, tombstone: int) -> bool:
    await journal.remove(tombstone, now=wall_clock(), is_shared=True)
    return True


async def _first_fault(store: ObjectStore, shelf: Shelf, generation: str) -> str | None:
    """Return what is wrong with the first object that is missing or cannot be read."""
    log = objects.log_prefix(shelf.share_id, generation)
    snapshots = objects.snapshot_prefix(shelf.share_id, generation)
    numbers = shelf.snapshots.get(generation, [])
    for number in numbers[-1:]:
        if fault := await _fault(store, objects.numbered(snapshots, number), objects.decode_snapshot):
            return fault
    newest = numbers[-1] if numbers else 0
    tail = (number for number in shelf.logs.get(generation, ()) if number > newest)
    for expected, number in enumerate(tail, start=newest + 1):
        if number != expected:
            return f"entry {expected} of the log is missing"
        if fault := await _fault(store, objects.numbered(log, number), objects.decode_entry):
            return fault
    return None


async def _fault(store: ObjectStore, key: str, decode: Callable[[bytes], object]) -> str | None:
    try:
        found = await store.get(key)
        if found is not None:
            decode(found.body)
    except StoreError as exc:
        return f"{key}: {exc}"
    return None


# Rows for listings, which former versions kept


async def _look_at_rows(
    store: ObjectStore, share_id: str, rows: Collection[str], live: str | None, look: Look
) -> None:
    """Find the rows that are of no generation that there is."""
    for generation in rows:
        if generation == live:
            continue
        key = objects.index_key(share_id, generation)
        stored = await store.get(key)
        if stored is None:
            continue  # a server has just removed it
        try:
            decode_legacy_index(share_id, stored.body) if generation == objects.OLDER else (
                objects.decode_index(stored.body)
            )
        except StoreError as exc:
            look.add(key, Problem.UNKNOWN, str(exc))
        else:
            look.add_leftover(key, "of a share that is not there", [key])


# The older layout


async def _look_at_legacy(store: ObjectStore, share_id: str, key: str, look: Look) -> None:
    stored = await store.get(key)
    found = await read_head(store, share_id)
    if stored is None:
        return  # a server has just upgraded it
    if found is None and key != objects.older_key(share_id) and await store.get(objects.older_key(share_id)):
        return  # a server has just set it aside
    older = await asyncio.to_thread(decode_legacy, share_id, stored.body)
    if found is None:
        look.is_share = look.is_older = True
        _add_faults(key, older, look)
    elif found.head.generation == older.head.generation and not found.head.deleted:
        if older.faults:
            _add_faults(key, older, look)
        else:
            look.add_leftover(key, "of a share that has been upgraded", [key])
    elif found.head.deleted:
        look.add_leftover(key, "of a deleted share", [key])
    else:
        look.add(key, Problem.UNKNOWN, "another share has this id")


def _add_faults(key: str, older: LegacyShare, look: Look) -> None:
    for fault in older.faults:
        look.add(key, Problem.UNKNOWN, f"no share can hold {fault}")
