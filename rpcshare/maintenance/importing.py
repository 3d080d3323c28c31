"""From the bucket of an older deployment to a store, which may be the bucket itself."""

import asyncio
from collections.abc import Callable

import msgspec

from rpcshare.maintenance.concurrently import for_each
from rpcshare.shares import objects
from rpcshare.shares.adoption import adopted
from rpcshare.shares.journal import Journal, read_head
from rpcshare.shares.legacy_layout import decode_legacy, decode_legacy_index, find_legacy, upgrade
from rpcshare.shares.share_identity import is_share_id
from rpcshare.storage import ObjectInfo, ObjectStore, PreconditionFailedError, StoreError

__all__ = ["Imported", "import_bucket"]

_AT_ONCE = 4  # shares, each of which is in memory as a whole
_ATTEMPTS = 10  # at replacing a head, which others hardly ever do at the same time


class Imported(msgspec.Struct):
    """What became of the shares in a bucket."""

    imported: int = 0
    unchanged: int = 0
    """They have been imported before, whatever has been done to them since."""
    given: int = 0
    """They belonged to nobody, and are the owner's now."""
    deleted: int = 0
    """They have been imported before, and been deleted since."""
    skipped: list[tuple[str, str]] = []
    """What was not imported: the key, and what is wrong there."""


async def import_bucket(
    source: ObjectStore,
    target: ObjectStore,
    *,
    owner: str | None = None,
    on_share: Callable[[], None] = lambda: None,
) -> Imported:
    """Make shares with a log of those in the older layout. Doing it again does no harm.

    A share of which something is malformed is imported without that.

    Args:
        source: the bucket. Nothing is written to it, unless it is the target as well.
        target: where to. If it is ``source``, shares are upgraded in place: what they were is removed,
            unless something in it is malformed.
        owner: the subject whose the shares are from then on, those included that were imported before and
            belong to nobody; None: nobody's.
        on_share: called after each share.

    Raises:
        StoreError: one of the stores failed.
    """
    imported = Imported()
    share_ids: set[str] = set()

    async def import_share(info: ObjectInfo) -> None:
        _, share_id, *rest = info.key.split("/")
        if rest or share_id in share_ids:
            return  # of a share with a log, or one that has just been set aside
        if is_share_id(share_id):
            share_ids.add(share_id)
            await _import_share(source, target, share_id, owner, imported)
        else:
            imported.skipped.append((info.key, "is not the id of a share"))
        on_share()

    async def check_row(info: ObjectInfo) -> None:
        _, share_id, *rest = info.key.split("/")
        if rest:
            return  # of a share with a log
        if share_id not in share_ids:
            imported.skipped.append((info.key, "is the row of a share that is not there"))
        elif (found := await source.get(info.key)) is not None:
            try:
                decode_legacy_index(share_id, found.body)
            except StoreError as exc:
                imported.skipped.append((info.key, str(exc)))

    await for_each(source.list("share/"), import_share, at_once=_AT_ONCE)
    await for_each(source.list(objects.ASIDE_PREFIX), import_share, at_once=_AT_ONCE)
    await for_each(source.list(objects.INDEX_PREFIX), check_row, at_once=_AT_ONCE)
    return imported


async def _import_share(
    source: ObjectStore, target: ObjectStore, share_id: str, owner: str | None, imported: Imported
) -> None:
    found = await find_legacy(source, share_id)
    if found is None:
        return  # a server has just upgraded it
    key = found.key
    try:
        older = await asyncio.to_thread(decode_legacy, share_id, found.body)
    except StoreError as exc:
        imported.skipped.append((key, str(exc)))
        return
    before = await read_head(target, share_id)
    if source is not target and before is None and await find_legacy(target, share_id) is not None:
        imported.skipped.append(
            (key, "the store has a share of this id in the older layout: import that first")
        )
        return
    try:
        await upgrade(target, share_id, older)
    except PreconditionFailedError:
        if before is not None and before.head.deleted and before.head.generation == older.head.generation:
            imported.deleted += 1
        else:
            imported.skipped.append((key, "the store has, or had, another share of this id"))
        return
    if before is None:
        imported.imported += 1
    else:
        imported.unchanged += 1
    if owner is not None and await _give(target, share_id, older.head.generation, owner):
        imported.given += 1
    imported.skipped += ((key, fault) for fault in older.faults)


async def _give(store: ObjectStore, share_id: str, generation: str, owner: str) -> bool:
    """Make a share that belongs to nobody the owner's; return whether it was nobody's.

    Raises:
        StoreError: the store failed, or servers keep changing the share's settings.
    """
    journal = Journal(store, share_id, generation)
    for _ in range(_ATTEMPTS):
        found = await journal.live_head()
        if found is None or (head := adopted(found.head, owner)) is found.head:
            return False
        try:
            await journal.replace_head(head, found.etag)
        except PreconditionFailedError:
            continue
        return True
    raise StoreError(f"the head of share {share_id} cannot be replaced")
