"""Shares in the layout that deployments had before the log.

==================  ==================================================================================
``share/{id}``      the whole share: an AgentSession, with the secret and the rest in its ``metadata``
``index/{id}``      what a listing tells of it
``older/{id}``      the share, set aside: while it is upgraded, or for what could not be taken over
==================  ==================================================================================

Such an object is read as snapshot 0 of a share whose log is still empty, and which belongs to nobody:
its secret opens it, and an admin may write it. The first write upgrades it. Its generation follows from
its bytes, so nodes that upgrade it at once write the same objects, and whoever read it before finds the
log that he expects.

Some stores keep objects as files, and can have no object ``share/{id}/head`` while there is an object
``share/{id}``. That is why a share is first set aside.
"""

import asyncio
import hashlib
from collections.abc import Iterable

import msgspec

from rpcshare import jsontext
from rpcshare.errors import ShareError
from rpcshare.shares import objects
from rpcshare.shares.content import Content
from rpcshare.shares.install import install
from rpcshare.shares.journal import Journal, Survey, read_head
from rpcshare.shares.objects import Head, IndexRow, LogSnapshot, SessionOwner
from rpcshare.shares.share_identity import SecretKind, is_session_id, secret_hash
from rpcshare.shares.state import SessionIndex, listing_text
from rpcshare.shares.syncdata import Item, Kind, parse_batch
from rpcshare.storage import ObjectStore, PreconditionFailedError, StoredObject, StoreError

__all__ = [
    "LegacyJournal",
    "LegacyShare",
    "decode_legacy",
    "decode_legacy_index",
    "find_legacy",
    "finish_upgrade",
    "read_legacy",
    "upgrade",
]

_MEMBERS = {
    "session": Kind.SESSION,
    "messages": Kind.MESSAGE,
    "parts": Kind.PART,
    "diffs": Kind.DIFF,
    "models": Kind.MODEL,
}
_LARGE = 64 * 1024  # bytes that are not decoded on the event loop
_LARGEST_NUMBER = 2**53 - 1  # that JavaScript counts to


class LegacyShare(msgspec.Struct, frozen=True):
    """A share as it is read from the older layout."""

    head: Head
    """The one that it gets when it is upgraded."""
    snapshot: LogSnapshot
    faults: tuple[str, ...]
    """What is in it that no share can hold: each the place, and what is wrong there."""


async def read_legacy(store: ObjectStore, share_id: str) -> LegacyShare | None:
    """Return a share in the older layout, or None if there is none of that id.

    Raises:
        StoreError: the store failed, or holds something else there.
    """
    found = await find_legacy(store, share_id)
    if found is None:
        return None
    if len(found.body) < _LARGE:
        return decode_legacy(share_id, found.body)
    return await asyncio.to_thread(decode_legacy, share_id, found.body)


async def find_legacy(store: ObjectStore, share_id: str) -> StoredObject | None:
    """Return the object of a share in the older layout, or None if there is none of that id.

    One that has no head by then was never there, or is not any more.

    Raises:
        StoreError: the store failed.
    """
    # In this order, in which an upgrade moves it.
    return await store.get(objects.older_key(share_id)) or await store.get(objects.aside_key(share_id))


def decode_legacy(share_id: str, body: bytes) -> LegacyShare:
    """Return the share that ``body`` is, whatever members it lacks.

    Raises:
        StoreError: it is none.
    """
    try:
        value = jsontext.decode(body)
    except jsontext.JSONDecodeError as exc:
        raise StoreError(f"{objects.older_key(share_id)} is not JSON") from exc
    if type(value) is not dict or not ({*_MEMBERS, "metadata"} & value.keys()):
        raise StoreError(f"{objects.older_key(share_id)} is not an AgentSession")
    faults: list[str] = []
    content = Content()
    for name, kind in _MEMBERS.items():
        content.apply(_items(kind, name, value.pop(name, None), faults))
    metadata, session = _object(value.pop("metadata", None)), _object(_session(content))
    faults += (f"{listing_text(name)}: is not known" for name in value)
    secret = metadata.get("secret")
    created_at = _whole(metadata.get("createdAt"), _whole(_object(session.get("time")).get("created")))
    head = Head(
        v=objects.VERSION,
        generation=_generation(share_id, body),
        session_id=_session_id(metadata.get("sessionID"), session.get("id"), share_id),
        owner=None,
        secret_kind=SecretKind.IMPORTED,
        secret_hash=secret_hash(secret) if type(secret) is str and secret else None,
        created_at=created_at,
    )
    last_updated = _whole(metadata.get("lastUpdated"), created_at)
    sync_count = _whole(metadata.get("syncCount"))
    return LegacyShare(head, LogSnapshot(sync_count, last_updated, content.items()), tuple(faults))


def decode_legacy_index(share_id: str, body: bytes) -> IndexRow:
    """Return the row of a share in the older layout, whatever members it lacks.

    Raises:
        StoreError: it is none.
    """
    try:
        value = jsontext.decode(body)
    except jsontext.JSONDecodeError as exc:
        raise StoreError("the store holds an older index object that is not JSON") from exc
    if type(value) is not dict:
        raise StoreError("the store holds an older index object that cannot be read")
    created_at = _whole(value.get("createdAt"))
    index = SessionIndex(
        id=share_id,
        session_id=_session_id(value.get("sessionID"), share_id),
        title=listing_text(value.get("title")),
        directory=listing_text(value.get("directory")),
        message_count=_whole(value.get("messageCount")),
        part_count=_whole(value.get("partCount")),
        diff_count=_whole(value.get("diffCount")),
        model_count=_whole(value.get("modelCount")),
        last_updated=_whole(value.get("lastUpdated"), created_at),
        sync_count=_whole(value.get("syncCount")),
        created_at=created_at,
    )
    return IndexRow(objects.VERSION, objects.OLDER, None, index)


async def upgrade(store: ObjectStore, share_id: str, older: LegacyShare) -> None:
    """Write a share anew, as one with a log, and remove what it was.

    What holds more than could be taken over stays aside, secret and all, until the share is deleted. An
    upgrade may be interrupted, and be done again.

    Raises:
        PreconditionFailedError: the id is another share's by now, or the share has been deleted.
        StoreError: the store failed, or the older deployment is still at work on the share.
    """
    found = await read_head(store, share_id)
    if found is None:
        await _set_aside(store, share_id, older)
        # Whose the secret is that follows from the session, nobody knows; but it may be this share's.
        nobody = SessionOwner(objects.VERSION, None)
        try:
            await install(store, share_id, older.head, older.snapshot, session=nobody)
        except PreconditionFailedError:
            found = await read_head(store, share_id)
            if found is not None and found.head.generation == older.head.generation:
                await store.delete([objects.aside_key(share_id)])  # with the share, which is deleted
            raise
    elif found.head.deleted or found.head.generation != older.head.generation:
        raise PreconditionFailedError(f"there is another share {share_id}")
    if not older.faults:
        await store.delete([objects.aside_key(share_id)])


async def finish_upgrade(store: ObjectStore, share_id: str, generation: str) -> None:
    """Remove what an upgrade has left aside that was interrupted when the share stood already.

    Nothing is done if none was, or if the share is not of ``generation`` any more.

    Raises:
        StoreError: the store failed.
    """
    key = objects.aside_key(share_id)
    found = await store.get(key)
    if found is None or _generation(share_id, found.body) != generation:
        return
    head = await read_head(store, share_id)
    if head is None or head.head.deleted or head.head.generation != generation:
        return
    older = await asyncio.to_thread(decode_legacy, share_id, found.body)
    if not older.faults:
        await store.delete([key])


async def _set_aside(store: ObjectStore, share_id: str, older: LegacyShare) -> None:
    key = objects.older_key(share_id)
    found = await store.get(key)
    row = await store.get(objects.index_key(share_id, objects.OLDER))
    if found is not None:
        if _generation(share_id, found.body) != older.head.generation:
            raise StoreError(f"{key} has changed: is the older deployment still running?")
        await store.put(objects.aside_key(share_id), found.body)
    # Only what is there: a store of files might take the name of a folder for it.
    await store.delete([stored.key for stored in (found, row) if stored is not None])


def _generation(share_id: str, body: bytes) -> str:
    return hashlib.sha256(f"{share_id}\n".encode() + body).hexdigest()[:16]


class LegacyJournal(Journal):
    """The journal of a share in the older layout. The first entry upgrades it."""

    def __init__(self, store: ObjectStore, share_id: str, older: LegacyShare) -> None:
        super().__init__(store, share_id, older.head.generation)
        self._older: LegacyShare | None = older  # None: this node has seen to the upgrade

    async def survey(self, after: int = 0) -> Survey:
        """Look at what there is behind entry ``after``; what was read counts as snapshot 0."""
        found = await super().survey(after)
        if self._older is None or found.snapshots or found.head_etag is not None:
            return found
        return msgspec.structs.replace(found, snapshots=(0,))

    async def read_snapshot(self, number: int) -> tuple[LogSnapshot, int] | None:
        """Return a snapshot and how many bytes it takes, or None if it is not there."""
        if number == 0 and self._older is not None:
            return self._older.snapshot, 0
        return await super().read_snapshot(number)

    async def append(self, number: int, body: bytes) -> str:
        """Write an entry, and return its etag.

        Raises:
            PreconditionFailedError: there is an entry of this number, or the share is deleted.
        """
        await self.prepare()
        return await super().append(number, body)

    async def prepare(self) -> None:
        """Upgrade the share, unless this node has.

        Raises:
            PreconditionFailedError: the id is another share's by now, or the share is deleted.
        """
        if self._older is not None:
            await upgrade(self._store, self.share_id, self._older)
            self._older = None


def _items(kind: Kind, name: str, value: object, faults: list[str]) -> Iterable[Item]:
    """Yield what is in the member ``name``; add to ``faults`` what cannot be."""
    if value is None:
        return
    if kind is Kind.SESSION:
        data: Iterable[tuple[str, object]] = [(name, value)]
    elif type(value) is list:
        data = ((f"{name}[{index}]", each) for index, each in enumerate(value))
    else:
        faults.append(f"{name}: must be a list")
        return
    is_list = kind in (Kind.DIFF, Kind.MODEL)
    for place, each in data:
        try:
            yield from parse_batch([{"type": kind.value, "data": [each] if is_list else each}]).items
        except ShareError as exc:
            where, _, why = exc.message.partition(": ")
            within = where.removeprefix("data[0].data").removeprefix("[0]" if is_list else "")
            faults.append(f"{place}{within}: {why}")


def _session(content: Content) -> object:
    return jsontext.decode(content.session) if content.session is not None else None


def _object(value: object) -> dict[str, object]:
    return value if type(value) is dict else {}


def _session_id(*candidates: object) -> str:
    """Return the first that is a session ID; the last is used as it is."""
    *others, last = candidates
    return str(next((value for value in others if is_session_id(value)), last))


def _whole(value: object, otherwise: int = 0) -> int:
    """Return a count or a time, which a program may have written as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST_NUMBER:
        return otherwise
    return int(value)
