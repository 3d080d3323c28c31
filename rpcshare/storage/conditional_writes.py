"""Whether a store does what orders the writers of a share: for a server to know before it starts."""

import secrets

from rpcshare.storage.store import ObjectStore, PreconditionFailedError, StoreError

__all__ = ["UnconditionalWritesError", "check_conditional_writes"]


class UnconditionalWritesError(StoreError):
    """The store writes whatever the condition: only one server may write to it."""


async def check_conditional_writes(store: ObjectStore) -> None:
    """Return if ``store`` refuses writes whose condition does not hold.

    Tries it with an object under ``probe/``, which is removed.

    Raises:
        UnconditionalWritesError: it does not. The message says what follows.
        StoreError: the store failed.
    """
    key = f"probe/{secrets.token_hex(8)}"
    try:
        etag = await store.put(key, b"first", if_absent=True)
        if not await _is_refused(store, key, if_absent=True):
            raise UnconditionalWritesError(_consequence("If-None-Match"))
        if not await _is_refused(store, key, if_match=etag[::-1] + "0"):
            raise UnconditionalWritesError(_consequence("If-Match"))
    finally:
        await store.delete([key])


async def _is_refused(
    store: ObjectStore, key: str, *, if_absent: bool = False, if_match: str | None = None
) -> bool:
    try:
        await store.put(key, secrets.token_bytes(8), if_absent=if_absent, if_match=if_match)
    except PreconditionFailedError:
        return True
    return False


def _consequence(header: str) -> str:
    return (
        f"the store ignores {header}, so two servers that write to it would overwrite what the other "
        "wrote: run a single server on it, or use a store with conditional writes"
    )
