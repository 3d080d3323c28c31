"""Finding an id for a share and taking it: the part of creating that must be atomic."""

import asyncio
import secrets as tokens
from collections.abc import Sequence

import msgspec

from rpcshare.auth.caller import Caller
from rpcshare.shares import objects
from rpcshare.shares.access_settings import AccessChange
from rpcshare.shares.credentials import (
    Credentials,
    SecretKind,
    ShareCredentials,
    random_secret,
    secret_hash,
)
from rpcshare.shares.expiry import schedule
from rpcshare.shares.journal import StoredHead, read_head
from rpcshare.shares.objects import Head, SessionOwner
from rpcshare.shares.older import find_older
from rpcshare.storage import ObjectStore, PreconditionFailedError, StoreError

__all__ = ["Claim", "claim"]

_RANDOM_IDS = 5  # how many are tried; that even two are needed is next to impossible


class Claim(msgspec.Struct, frozen=True):
    """A share of the caller's, old or new."""

    credentials: ShareCredentials
    new_head: StoredHead | None
    """The head of a share that has just been made, with nothing in its log."""


async def claim(
    store: ObjectStore,
    credentials: Credentials,
    caller: Caller,
    session_id: str,
    now: int,
    access: AccessChange | None = None,
) -> Claim:
    """Return the caller's share of a session; make an empty one if there is none.

    An anonymous caller always gets a new one. The id of a share that was is its former owner's: links to it
    must not show what somebody else has put there.

    Args:
        store: where heads are.
        credentials: makes ids and secrets.
        caller: whose share it is.
        session_id: of what; checked.
        now: milliseconds since the epoch.
        access: the settings of a share that is made.

    Raises:
        StoreError: the store failed. An empty share may have been made.
    """
    ids = list(credentials.share_ids(session_id, caller.subject))
    # All of them: the caller's share may have a longer id because a shorter one, which has become
    # free since, was taken when it was made.
    heads = await asyncio.gather(*(read_head(store, share_id) for share_id in ids))
    for share_id, found in zip(ids, heads, strict=True):
        if found is not None and _is_own(found, caller, session_id):
            return _old(credentials, share_id, found.head)

    unclaimed = [share_id for share_id, found in zip(ids, heads, strict=True) if found is None]
    older = await _in_older_layout(store, unclaimed)
    kind = await _secret_kind(store, caller, session_id, is_known=bool(older))
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


async def _in_older_layout(store: ObjectStore, share_ids: Sequence[str]) -> set[str]:
    """Return which of ``share_ids``, none of which has a head, are taken by a share all the same."""
    found = await asyncio.gather(*(find_older(store, share_id) for share_id in share_ids))
    return {share_id for share_id, stored in zip(share_ids, found, strict=True) if stored is not None}


async def _secret_kind(store: ObjectStore, caller: Caller, session_id: str, *, is_known: bool) -> SecretKind:
    """Decide what the secret is made from. One caller, ever, has that of the session alone.

    Nobody has if it ``is_known`` to whom a share in the older layout belongs.
    """
    if caller.subject is None:
        return SecretKind.RANDOM
    if is_known:
        return SecretKind.SUBJECT
    key = objects.session_key(session_id)
    body = objects.encode_session_owner(SessionOwner(objects.VERSION, caller.subject))
    try:
        await store.put(key, body, if_absent=True)
    except PreconditionFailedError:
        found = await store.get(key)
        first = objects.decode_session_owner(found.body).owner if found is not None else None
        return SecretKind.SESSION if first == caller.subject else SecretKind.SUBJECT
    return SecretKind.SESSION


def _new_head(
    credentials: Credentials, caller: Caller, session_id: str, kind: SecretKind, now: int
) -> tuple[Head, str]:
    is_random = kind is SecretKind.RANDOM
    secret = random_secret() if is_random else credentials.secret(session_id, kind, caller.subject)
    head = Head(
        v=objects.VERSION,
        generation=tokens.token_hex(8),
        session_id=session_id,
        owner=caller.subject,
        secret_kind=kind,
        secret_hash=secret_hash(secret) if is_random else None,
        created_at=now,
    )
    return head, secret


def _old(credentials: Credentials, share_id: str, head: Head) -> Claim:
    secret = credentials.secret(head.session_id, head.secret_kind, head.owner)
    made = ShareCredentials(share_id, credentials.url(share_id), secret)
    return Claim(made, None)


def _is_left_to(found: StoredHead, caller: Caller) -> bool:
    """Whether a share of the caller's was there."""
    return found.head.deleted and caller.owns(found.head.owner)


def _is_own(found: StoredHead, caller: Caller, session_id: str) -> bool:
    head = found.head
    return not head.deleted and head.session_id == session_id and caller.owns(head.owner)
