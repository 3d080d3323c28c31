"""From a store to a backup."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from rpcshare.maintenance.concurrently import for_each
from rpcshare.maintenance.export_format import (
    VERSION,
    BackupError,
    ShareRecord,
    write_share_files,
    write_sums,
)
from rpcshare.maintenance.stored_share import StoredShare, read_share, share_ids
from rpcshare.shares import objects
from rpcshare.storage import ObjectStore, StoreError

__all__ = ["Exported", "export_shares"]

_AT_ONCE = 4  # shares, each of which is in memory as a whole


class Exported(msgspec.Struct):
    """What became of an export."""

    shares: int = 0
    failures: list[tuple[str, str]] = []
    """What is not in the backup: share, and why."""


async def export_shares(
    store: ObjectStore,
    folder: Path,
    chosen: Sequence[str] = (),
    *,
    on_share: Callable[[], None] = lambda: None,
) -> Exported:
    """Write shares, ``chosen`` or all, into ``folder``, which must be empty or not be there.

    Each is as it was at one moment, with servers at work or not. One that cannot be read is left out.

    Raises:
        BackupError: there is something in the folder.
        OSError: a file cannot be written.
        StoreError: the store failed.
    """
    await asyncio.to_thread(_make_empty, folder)
    exported = Exported()
    sums: dict[str, str] = {}

    async def export(share_id: str) -> None:
        try:
            share = await read_share(store, share_id)
            if share is not None:
                record = await _record(store, share_id, share)
                items = share.snapshot.items
                sums.update(await asyncio.to_thread(write_share_files, folder, record, items))
                exported.shares += 1
                exported.failures += ((share_id, f"no share can hold {fault}") for fault in share.faults)
            elif chosen:
                exported.failures.append((share_id, "there is no such share"))
        except StoreError as exc:
            await store.check()  # that answers, so it is the share
            exported.failures.append((share_id, str(exc)))
        on_share()

    ids = _each(chosen) if chosen else share_ids(store)
    await for_each(ids, export, at_once=_AT_ONCE)
    await asyncio.to_thread(write_sums, folder, sums)
    return exported


def _make_empty(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty")
    (folder / "sessions").mkdir(mode=0o700)


async def _record(store: ObjectStore, share_id: str, share: StoredShare) -> ShareRecord:
    head, snapshot = share.head, share.snapshot
    session = await store.get(objects.session_key(head.session_id))
    return ShareRecord(
        v=VERSION,
        id=share_id,
        session_id=head.session_id,
        owner=head.owner,
        session=objects.decode_session_owner(session.body) if session is not None else None,
        secret_kind=head.secret_kind,
        secret_hash=head.secret_hash,
        visibility=head.visibility,
        password_hash=head.password_hash,
        expires_at=head.expires_at,
        created_at=head.created_at,
        last_updated=snapshot.last_updated,
        sync_count=snapshot.sync_count,
    )


async def _each(chosen: Sequence[str]) -> AsyncIterator[str]:
    for share_id in dict.fromkeys(chosen):
        yield share_id
