"""From a backup to a store."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec

from rpcshare.maintenance.concurrently import for_each
from rpcshare.maintenance.export_format import ShareRecord, check_sums, read_share_files, read_sums
from rpcshare.maintenance.stored_share import StoredShare, read_share
from rpcshare.shares import objects
from rpcshare.shares.context import wall_clock
from rpcshare.shares.install import SessionTakenError, install
from rpcshare.shares.journal import Journal, StoredHead, read_head
from rpcshare.shares.legacy_layout import read_legacy, upgrade
from rpcshare.shares.objects import Head
from rpcshare.shares.replay import replay
from rpcshare.storage import ObjectStore, PreconditionFailedError, StoreError

__all__ = ["Restored", "restore_shares"]

_AT_ONCE = 4  # shares, each of which is in memory as a whole
_ATTEMPTS = 10


class Restored(msgspec.Struct):
    """What became of the shares of a backup."""

    restored: int = 0
    unchanged: int = 0
    """The store had them already, and just so."""
    refused: list[tuple[str, str]] = []
    """What was not restored: share, and why."""


async def restore_shares(
    store: ObjectStore,
    folder: Path,
    *,
    overwrite: bool = False,
    on_share: Callable[[], None] = lambda: None,
) -> Restored:
    """Bring the shares of the backup in ``folder`` into ``store``, if all of its files are well.

    Done again after an interruption, it goes on where it was.

    Args:
        store: where to.
        folder: of the backup.
        overwrite: whether to replace a share that is there already, and another.
        on_share: called after each share.

    Raises:
        BackupError: the backup is not complete, or not what it was. Nothing has been restored.
        StoreError: the store failed.
    """
    sums = await asyncio.to_thread(read_sums, folder)
    for share_id, of_share in sums.items():
        await asyncio.to_thread(check_sums, folder, share_id, of_share)
    restored = Restored()

    async def restore(share_id: str) -> None:
        record, snapshot = await asyncio.to_thread(read_share_files, folder, share_id)
        backup = StoredShare(_head(record), snapshot)
        try:
            existing = await read_share(store, share_id)
        except StoreError:
            await store.check()  # that answers, so it is the share
            existing, fault = None, "the store has another (see --overwrite)"
        else:
            fault = "the store has another (see --overwrite)" if existing is not None else ""
        if existing is not None and _is_same(existing, backup):
            restored.unchanged += 1
        elif fault and not overwrite:
            restored.refused.append((share_id, fault))
        else:
            try:
                etag = await _bury(store, share_id)
                session = record.session
                await install(store, share_id, backup.head, snapshot, session=session, replacing=etag)
                restored.restored += 1
            except PreconditionFailedError:
                restored.refused.append((share_id, "somebody has just made it anew"))
            except _BusyError:
                restored.refused.append((share_id, "servers write to it all the time"))
            except SessionTakenError as exc:
                restored.refused.append((share_id, str(exc)))
        on_share()

    await for_each(_each(sums), restore, at_once=_AT_ONCE)
    return restored


def _head(record: ShareRecord) -> Head:
    return Head(
        v=objects.VERSION,
        generation=secrets.token_hex(8),
        session_id=record.session_id,
        owner=record.owner,
        secret_kind=record.secret_kind,
        secret_hash=record.secret_hash,
        created_at=record.created_at,
        visibility=record.visibility,
        password_hash=record.password_hash,
        expires_at=record.expires_at,
    )


def _is_same(existing: StoredShare, backup: StoredShare) -> bool:
    # What its settings are counts, and not how often they have changed.
    head = msgspec.structs.replace(
        existing.head, generation=backup.head.generation, epoch=0, revision=0, changes=()
    )
    return head == backup.head and existing.snapshot == backup.snapshot


async def _bury(store: ObjectStore, share_id: str) -> str | None:
    """Delete the share, if there is one, and return the etag of its head, if there ever was one.

    Servers that have it open learn of it as of any deletion: by the tombstone. Only where the share
    cannot be read there can be none; then what there is of it becomes a former generation.

    Raises:
        _BusyError: servers keep writing to it.
        StoreError: the store failed.
    """
    try:
        if await read_head(store, share_id) is None:
            older = await read_legacy(store, share_id)
            if older is not None:
                await upgrade(store, share_id, older)
        found = await read_head(store, share_id)
        if found is not None and not found.head.deleted:
            journal = Journal(store, share_id, found.head.generation)
            await _append_tombstone(journal, found)
    except StoreError:
        await store.check()  # that answers, so it is the share
    head = await store.get(objects.head_key(share_id))
    return head.etag if head is not None else None


class _BusyError(Exception):
    """Other writers were first each time."""


async def _append_tombstone(journal: Journal, found: StoredHead) -> None:
    """End the log, and remove the share.

    Raises:
        _BusyError: it cannot be ended.
        StoreError: the store failed.
    """
    body = objects.encode_tombstone(secrets.token_hex(8))
    for _ in range(_ATTEMPTS):
        replayed = await replay(journal, found.head, found.etag)
        tombstone = replayed.tombstone
        if not replayed.is_ended:
            tombstone = replayed.entry + 1
            try:
                await journal.append(tombstone, body)
            except PreconditionFailedError:
                continue  # a server has written to it meanwhile
        if tombstone is not None:
            await journal.remove(tombstone, now=wall_clock(), is_shared=True)
        return
    raise _BusyError


async def _each(share_ids: Iterable[str]) -> AsyncIterator[str]:
    for share_id in share_ids:
        yield share_id
