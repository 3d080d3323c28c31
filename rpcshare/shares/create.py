"""Finding an id for a share and taking it: the part of creating that must be atomic."""

import asyncio
import secrets as tokens
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from rpcshare.auth.caller import Caller
from rpcshare.shares import objects
from rpcshare.shares.access_settings import AccessChange
from rpcshare.shares.expiry import schedule
from rpcshare.shares.journal import StoredHead, read_head
from rpcshare.shares.legacy_layout import LegacyShare, find_legacy, read_legacy
from rpcshare.shares.objects import Head, SessionOwner
from rpcshare.shares.share_identity import (
    Credentials,
    SecretKind,
    ShareCredentials,
    random_secret,
    secret_hash,
)
from rpcshare.storage import ObjectStore, PreconditionFailedError, StoreError

__all__ = ["Claim", "claim"]

_RANDOM_IDS = 5  # how many are tried; that even two are needed is next to impossible


class Claim(msgspec.Struct, frozen=True):
    """A share of the caller's, old or new."""

    credentials: ShareCredentials
    new_head: StoredHead | None
    """The head of a share that has just been made, with nothing in its log."""
    is_adopted: bool = False
    """The share belongs to nobody yet: it becomes the caller's by :func:`~.adoption.adopted`."""


async def claim(
    store: ObjectStore,
    credentials: Credentials,
    caller: Caller,
    session_id: str,
    now: int,
    access: AccessChange | None = None,
    *,
    adoptable: Callable[[Sequence[tuple[str, Head]]], str | None] = lambda _found: None,
    shown: str | None = None,
    before_new: Callable[[], Awaitable[None]],
) -> Claim:
    """Return the caller's share of a session; make an empty one if there is none.

    An anonymous caller gets a new one, unless a share of the session that belongs to nobody is adoptable.
    The id of a share that was is its former owner's: links to it must not show what somebody else has put
    there.

    Args:
        store: where heads are.
        credentials: makes ids and secrets.
        caller: whose share it is.
        session_id: of what; checked.
        now: milliseconds since the epoch.
        access: the settings of a share that is made.
        adoptable: returns which of the shares of the session that belong to nobody the caller may have: none,
            unless there are some.
        shown: the secret that the caller has shown for that.
        before_new: is called before anything is written for a share that is to be the caller's, and was not.

    Raises:
        StoreError: the store failed. An empty share may have been made.
        ShareError: what ``adoptable`` and ``before_new`` raise.
    """
    ids = list(credentials.share_ids(session_id, caller.owner, caller.aliases))
    # All of them: the caller's share may have a longer id because a shorter one, which has become
    # free since, was taken when it was made.
    heads = await asyncio.gather(*(read_head(store, share_id) for share_id in ids))
    for share_id, found in zip(ids, heads, strict=True):
        if found is not None and _is_own(found, caller, session_id):
            return _old(credentials, share_id, found.head)

    unclaimed = [share_id for share_id, found in zip(ids, heads, strict=True) if found is None]
    older = await _in_legacy_layout(store, unclaimed)
    found_heads = {
        share_id: found.head for share_id, found in zip(ids, heads, strict=True) if found is not None
    }
    found_heads.update((share_id, share.head) for share_id, share in older.items() if share is not None)
    adopted_id = adoptable(_nobodys(ids, found_heads, session_id))
    await before_new()
    if adopted_id is not None:
        return _adopted(credentials, adopted_id, found_heads[adopted_id], caller, shown)
    # What says whose the secret is may have been lost, or be of an older time than the share.
    holders = [head for head in found_heads.values() if _has_secret_of_session(head, session_id)]
    kind = await _secret_kind(store, caller, session_id, is_known=bool(older), holders=holders)
    new, secret = _new_head(credentials, caller, session_id, kind, now)
    if access is not None:
        new = access.applied_to(new)
    body = objects.encode_head(new)
    free = [
        (share_id, found)
        for share_id, found in zip(ids, heads, strict=True)
        if share_id not in older and (found is None or _is_left_to(found, caller))
    ]
    free += [(credentials.random_share_id(session_id), None) for _ in range(_RANDOM_IDS)]
    for share_id, found in free:
        key = objects.head_key(share_id)
        if new.expires_at is not None:
            await schedule(store, share_id, new.expires_at)
        try:
            if found is None:
                etag = await store.put(key, body, if_absent=True)
            else:
                etag = await store.put(key, body, if_match=found.etag)
        except PreconditionFailedError:
            winner = await read_head(store, share_id)
            if winner is not None and _is_own(winner, caller, session_id):
                return _old(credentials, share_id, winner.head)
            continue
        made = ShareCredentials(share_id, credentials.url(share_id), secret)
        return Claim(made, StoredHead(new, etag))
    raise StoreError(f"no id is free for session {session_id}")


def _nobodys(ids: Sequence[str], found: Mapping[str, Head], session_id: str) -> list[tuple[str, Head]]:
    """Return which of the shares ``found`` are of the session, and belong to nobody."""
    return [
        (share_id, found[share_id])
        for share_id in ids
        if share_id in found and _is_nobodys(found[share_id], session_id)
    ]


async def _in_legacy_layout(store: ObjectStore, share_ids: Sequence[str]) -> dict[str, LegacyShare | None]:
    """Return those of ``share_ids``, none of which has a head, that are taken by a share all the same.

    It is None where the share cannot be read.
    """
    stored = await asyncio.gather(*(find_legacy(store, share_id) for share_id in share_ids))
    found: dict[str, LegacyShare | None] = {}
    for share_id in (share_id for share_id, each in zip(share_ids, stored, strict=True) if each is not None):
        try:
            found[share_id] = await read_legacy(store, share_id)
        except StoreError:
            await store.check()  # that answers, so it is the share
            found[share_id] = None
    return found


def _has_secret_of_session(head: Head, session_id: str) -> bool:
    kinds = (SecretKind.SESSION, SecretKind.IMPORTED)
    return not head.deleted and head.session_id == session_id and head.secret_kind in kinds


async def _secret_kind(
    store: ObjectStore, caller: Caller, session_id: str, *, is_known: bool, holders: Sequence[Head]
) -> SecretKind:
    """Decide what the secret is made from. One caller, ever, has that of the session alone.

    Nobody has if it ``is_known`` to whom a share in the older layout belongs, or if there are ``holders``:
    other shares that it opens.
    """
    if caller.subject is None:
        return SecretKind.RANDOM
    if is_known:
        return SecretKind.SUBJECT
    key = objects.session_key(session_id)
    owner = holders[0].owner if holders else caller.owner
    body = objects.encode_session_owner(SessionOwner(objects.VERSION, owner))
    try:
        await store.put(key, body, if_absent=True)
    except PreconditionFailedError:
        found = await store.get(key)
        owner = objects.decode_session_owner(found.body).owner if found is not None else None
        if found is not None and not holders and owner in caller.aliases:
            # The caller, by a name from before: said with the present one, as the new share's head is.
            own = objects.encode_session_owner(SessionOwner(objects.VERSION, caller.owner))
            with suppress(PreconditionFailedError):
                await store.put(key, own, if_match=found.etag)
                owner = caller.owner
    return SecretKind.SESSION if owner == caller.owner and not holders else SecretKind.SUBJECT


def _new_head(
    credentials: Credentials, caller: Caller, session_id: str, kind: SecretKind, now: int
) -> tuple[Head, str]:
    is_random = kind is SecretKind.RANDOM
    secret = random_secret() if is_random else credentials.secret(session_id, kind, caller.owner)
    head = Head(
        v=objects.VERSION,
        generation=tokens.token_hex(8),
        session_id=session_id,
        owner=caller.owner,
        secret_kind=kind,
        secret_hash=secret_hash(secret) if is_random else None,
        created_at=now,
    )
    return head, secret


def _old(credentials: Credentials, share_id: str, head: Head) -> Claim:
    made = ShareCredentials(share_id, credentials.url(share_id), _secret_of(credentials, head, head.owner))
    return Claim(made, None)


def _adopted(credentials: Credentials, share_id: str, head: Head, caller: Caller, shown: str | None) -> Claim:
    secret = shown if shown is not None else _secret_of(credentials, head, caller.owner)
    made = ShareCredentials(share_id, credentials.url(share_id), secret)
    return Claim(made, None, is_adopted=caller.subject is not None)


def _secret_of(credentials: Credentials, head: Head, owner: str | None) -> str:
    """Return a secret of ``owner``'s share: the one that it came with, if this server can tell that."""
    if head.secret_hash is not None and credentials.is_of_session(head.session_id, head.secret_hash):
        return credentials.secret(head.session_id, SecretKind.SESSION, None)
    kind = SecretKind.IMPORTED if head.secret_kind is SecretKind.RANDOM else head.secret_kind
    return credentials.secret(head.session_id, kind, owner)


def _is_nobodys(head: Head, session_id: str) -> bool:
    return not head.deleted and head.owner is None and head.session_id == session_id


def _is_left_to(found: StoredHead, caller: Caller) -> bool:
    """Whether a share of the caller's was there."""
    return found.head.deleted and caller.owns(found.head.owner)


def _is_own(found: StoredHead, caller: Caller, session_id: str) -> bool:
    head = found.head
    return not head.deleted and head.session_id == session_id and caller.owns(head.owner)
