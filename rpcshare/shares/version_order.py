"""Which of two copies of an object is the newer, so that a copy never brings back what was ended."""

from enum import Enum, auto

import msgspec

from rpcshare.auth.api_keys import KEY_PREFIX, decode_key
from rpcshare.auth.unprefixed_owners import UNPREFIXED_KEY
from rpcshare.shares import objects
from rpcshare.storage import StoredObject, StoreError

__all__ = ["Newer", "merged", "newer", "reconciled"]


class Newer(Enum):
    """What there is to say of an object that two stores have otherwise."""

    SOURCE = auto()
    TARGET = auto()
    NEITHER = auto()
    """They have nothing to do with each other, or it cannot be told."""


def newer(ours: StoredObject, theirs: StoredObject) -> Newer:
    """Return which store has the newer of two objects with one key, ``ours`` being the source's.

    A share that was deleted is newer than the same share, and so are settings that were changed more often.
    A key that was revoked is newer than the same key, and an entry by which a log ended than any other.
    """
    try:
        if ours.key.startswith("share/") and ours.key.endswith("/head"):
            return _newer_head(objects.decode_head(ours.body), objects.decode_head(theirs.body))
        if ours.key.startswith("share/") and "/log/" in ours.key:
            return _newer_entry(objects.decode_entry(ours.body), objects.decode_entry(theirs.body))
        if ours.key.startswith(KEY_PREFIX):
            return _newer_key(ours, theirs)
        if ours.key == UNPREFIXED_KEY:
            return Newer.TARGET  # each store has decided it, for the owners that it had
    except StoreError:
        return Newer.NEITHER
    return Newer.NEITHER


def merged(ours: StoredObject, theirs: StoredObject) -> bytes | None:
    """Return the row of a share that holds the newest of both stores'; None if one cannot be read."""
    try:
        row, other = objects.decode_index(ours.body), objects.decode_index(theirs.body)
    except StoreError:
        return None
    return objects.encode_index(row.merged_with(other))


def reconciled(ours: StoredObject, theirs: StoredObject) -> bytes | None:
    """Return the head of a share whose settings were changed in both stores since they were copied.

    It is private if either is, else for an organization if either is, and has a password if either has one.
    The rest is that of the one that was changed more often. None: one has all changes of the other, or it
    cannot be told.
    """
    if not ours.key.endswith("/head"):
        return None
    try:
        our_head, their_head = objects.decode_head(ours.body), objects.decode_head(theirs.body)
    except StoreError:
        return None
    if our_head.generation != their_head.generation or our_head.deleted or their_head.deleted:
        return None
    if _has_changes_of(our_head, their_head) or _has_changes_of(their_head, our_head):
        return None
    newest, other = sorted((our_head, their_head), key=lambda head: head.revision, reverse=True)
    narrowest = (objects.Visibility.PRIVATE, objects.Visibility.ORGANIZATION, objects.Visibility.LINK)
    visibility = min(newest.visibility, other.visibility, key=narrowest.index)
    kept = objects.CHANGES_KEPT // 2
    head = msgspec.structs.replace(
        newest,
        visibility=visibility,
        password_hash=newest.password_hash or other.password_hash,
        epoch=max(newest.epoch, other.epoch) + 1,
        changes=other.changes[-kept:] + newest.changes[-kept:],
    )
    return objects.encode_head(head.revised())


def _has_changes_of(head: objects.Head, other: objects.Head) -> bool:
    """Whether ``head`` has all changes of ``other``; True also of an older version's, which names none."""
    return not other.changes or other.changes[-1] in head.changes


def _newer_head(ours: objects.Head, theirs: objects.Head) -> Newer:
    if ours.generation != theirs.generation:
        return Newer.NEITHER
    if ours.deleted != theirs.deleted:
        return Newer.SOURCE if ours.deleted else Newer.TARGET
    if ours.revision != theirs.revision:
        return Newer.SOURCE if ours.revision > theirs.revision else Newer.TARGET
    return Newer.NEITHER


def _newer_entry(ours: objects.LogEntry, theirs: objects.LogEntry) -> Newer:
    if theirs.is_tombstone:
        return Newer.TARGET
    return Newer.SOURCE if ours.is_tombstone else Newer.NEITHER


def _newer_key(ours: StoredObject, theirs: StoredObject) -> Newer:
    our_key, their_key = decode_key(ours), decode_key(theirs)
    if our_key.hash != their_key.hash:
        return Newer.NEITHER
    if (our_key.revoked_at is None) != (their_key.revoked_at is None):
        return Newer.TARGET if our_key.revoked_at is None else Newer.SOURCE
    # Revoked in both: neither brings it back, so the target keeps what it has.
    return Newer.TARGET if our_key.revoked_at is not None else Newer.NEITHER
