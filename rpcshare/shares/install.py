"""Putting a whole share into the store at once: upgraded, imported or restored, not grown by syncs."""

from rpcshare.shares import objects
from rpcshare.shares.expiry import schedule
from rpcshare.shares.journal import Journal
from rpcshare.shares.objects import Head, LogSnapshot, SessionOwner
from rpcshare.shares.share_identity import SecretKind
from rpcshare.storage import ObjectStore, PreconditionFailedError

__all__ = ["SessionTakenError", "install"]


class SessionTakenError(Exception):
    """The secret that follows from the session alone is somebody else's in this store."""


async def install(
    store: ObjectStore,
    share_id: str,
    head: Head,
    snapshot: LogSnapshot,
    *,
    session: SessionOwner | None,
    replacing: str | None = None,
) -> None:
    """Make a share that holds what ``snapshot`` does. It is there as a whole, or not at all.

    Two nodes that install the same under the same generation do not disturb each other.

    Args:
        store: where.
        share_id: its id.
        head: with a generation that the store has never had, unless it was another node's for the same.
        snapshot: its content.
        session: what is to be said of the session, unless something is: who was the first to share it.
        replacing: the etag of the head that is there, and will not be missed; None if there is none.

    Raises:
        PreconditionFailedError: the id is another share's by now. Nothing is left behind.
        SessionTakenError: likewise.
    """
    if session is not None:
        session = await _claimed_session(store, head.session_id, session)
    if head.secret_kind is SecretKind.SESSION and (session is None or session.owner != head.owner):
        raise SessionTakenError(f"session {head.session_id} was first shared by another here")
    journal = Journal(store, share_id, head.generation)
    if head.expires_at is not None:
        await schedule(store, share_id, head.expires_at)
    await journal.write_snapshot(0, snapshot)
    key, body = objects.head_key(share_id), objects.encode_head(head)
    try:
        if replacing is None:
            await store.put(key, body, if_absent=True)
        else:
            await store.put(key, body, if_match=replacing)
    except PreconditionFailedError:
        if await journal.live_head() is None:
            await journal.delete_snapshot(0)
            raise
        # Unless it has gone, another node has installed the same.


async def _claimed_session(store: ObjectStore, session_id: str, session: SessionOwner) -> SessionOwner:
    """Say who was the first to share a session, unless it is said already; return what is said."""
    key = objects.session_key(session_id)
    try:
        await store.put(key, objects.encode_session_owner(session), if_absent=True)
    except PreconditionFailedError:
        found = await store.get(key)
        if found is not None:
            return objects.decode_session_owner(found.body)
    return session
