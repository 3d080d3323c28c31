"""Whether a store does what orders the writers of a share: for a server to know before it starts."""

import asyncio
import secrets

from rpcshare.storage.store import ObjectStore, PreconditionFailedError, StoreError

__all__ = ["UnconditionalWritesError", "UselessConditionsError", "check_conditional_writes"]

_AT_ONCE = 4  # writes of one object, of which one may succeed


class UnconditionalWritesError(StoreError):
    """The store writes whatever the condition: only one server may write to it."""


class UselessConditionsError(StoreError):
    """The store refuses writes whose condition holds: no server can use it."""


async def check_conditional_writes(store: ObjectStore) -> None:
    """Return if ``store`` makes a write if its condition holds, and refuses it if not.

    Tries it with objects under ``probe/``, which are removed.

    Raises:
        UnconditionalWritesError: it makes writes whose condition does not hold. The message says what
            follows.
        UselessConditionsError: it refuses writes whose condition holds. The message says why.
        StoreError: the store failed.
    """
    probe = _Probe(store)
    try:
        await probe.run()
    finally:
        await store.delete([probe.key, probe.absent_key])


class _Probe:
    def __init__(self, store: ObjectStore) -> None:
        self.key = f"probe/{secrets.token_hex(8)}"
        self.absent_key = f"{self.key}-absent"
        self._store = store

    async def run(self) -> None:
        first = await self._put(if_absent=True)
        if first is None:
            raise UselessConditionsError("the store refuses If-None-Match: * for a key that holds nothing")
        if first.startswith("W/"):
            raise UselessConditionsError(
                "the store gives weak ETags (W/…), which by RFC 9110 match no If-Match: settings could not "
                "be changed, nor shares deleted, nor keys revoked. If a proxy before the store weakens them, "
                "as for compression, turn that off"
            )
        if await self._put(if_absent=True) is not None:
            raise UnconditionalWritesError(_consequence("If-None-Match"))
        if await self._put(if_match=first[::-1] + "0") is not None:
            raise UnconditionalWritesError(_consequence("If-Match"))
        second = await self._put(if_match=first)
        if second is None:
            raise UselessConditionsError(
                "the store refuses If-Match with the ETag that it has just given: settings could not be "
                "changed, nor shares deleted, nor keys revoked"
            )
        if second == first:
            raise UnconditionalWritesError(
                "the store gives an object the same ETag when its body is another, so servers cannot tell "
                "that it was changed: run a single server on it, or use another store"
            )
        # What was there a moment ago must not match, whatever a store keeps in a cache.
        if await self._put(if_match=first) is not None:
            raise UnconditionalWritesError(_consequence("If-Match"))
        if await self._put(self.absent_key, if_match=second) is not None:
            raise UnconditionalWritesError(_consequence("If-Match for a key that holds nothing"))
        await self._check_reading(second)
        await self._check_writes_at_once()

    async def _check_reading(self, etag: str) -> None:
        """Have a writer that has read an object able to replace it."""
        found = await self._store.get(self.key)
        if found is None or (found.etag != etag and await self._put(if_match=found.etag) is None):
            raise UselessConditionsError(
                "the store gives an object another ETag when it is read than when it was written, and "
                "refuses If-Match with that"
            )

    async def _check_writes_at_once(self) -> None:
        await self._store.delete([self.key])
        written = await asyncio.gather(*(self._put(if_absent=True) for _ in range(_AT_ONCE)))
        if sum(etag is not None for etag in written) > 1:
            raise UnconditionalWritesError(_consequence("If-None-Match where writes meet"))

    async def _put(
        self, key: str | None = None, *, if_absent: bool = False, if_match: str | None = None
    ) -> str | None:
        """Return the etag of what was written; None if the store has refused to."""
        body = secrets.token_bytes(8)
        try:
            return await self._store.put(key or self.key, body, if_absent=if_absent, if_match=if_match)
        except PreconditionFailedError:
            return None


def _consequence(header: str) -> str:
    return (
        f"the store ignores {header}, so two servers that write to it would overwrite what the other "
        "wrote: run a single server on it, or use a store with conditional writes"
    )
