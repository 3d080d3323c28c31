"""Objects in memory, for tests and for a server whose shares need not outlive it."""

from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Sequence
from itertools import count

from rpcshare.storage.keys import key_range
from rpcshare.storage.store import (
    ObjectInfo,
    PreconditionFailedError,
    StoredObject,
    StoreError,
)

__all__ = ["MemoryStore"]


class MemoryStore:
    """An :class:`~rpcshare.storage.ObjectStore` that lasts as long as the process.

    For use on one event loop. No operation waits for anything, so each is atomic.
    """

    def __init__(self) -> None:
        self._objects: dict[str, StoredObject] = {}
        self._keys: list[str] = []  # those of _objects in order, so that a prefix is a slice
        self._versions = count(1)  # never used twice, so that an etag never comes back
        self._closed = False

    async def get(self, key: str) -> StoredObject | None:
        """Return the object at ``key``, or None if there is none."""
        self._refuse_when_closed()
        return self._objects.get(key)

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write ``body`` at ``key`` if the conditions hold, and return its etag."""
        self._refuse_when_closed()
        found = self._objects.get(key)
        if if_absent and found is not None:
            raise PreconditionFailedError(f"there is an object at {key}")
        if if_match is not None and (found is None or found.etag != if_match):
            raise PreconditionFailedError(f"the object at {key} has changed")
        if found is None:
            insort(self._keys, key)
        etag = str(next(self._versions))
        self._objects[key] = StoredObject(key, body, etag)
        return etag

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove the objects at ``keys``; one that is not there is no error."""
        self._refuse_when_closed()
        for key in keys:
            if self._objects.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is stored under ``prefix``, in key order, from behind ``start_after``."""
        async for key, body, etag in self.scan(prefix, start_after=start_after):
            yield ObjectInfo(key, etag, len(body))

    async def scan(self, prefix: str, *, start_after: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects under ``prefix`` with their bodies, in key order.

        Keys are those of the moment when the scan began; what has been deleted since is left out.
        """
        self._refuse_when_closed()
        first, end = key_range(prefix, start_after)
        for key in self._keys[bisect_left(self._keys, first) : bisect_left(self._keys, end)]:
            if (found := self._objects.get(key)) is not None:
                yield found

    async def check(self) -> None:
        """Return: memory answers. Raise :class:`StoreError` once the store is closed."""
        self._refuse_when_closed()

    async def close(self) -> None:
        """Let go of every object."""
        self._closed = True
        self._objects.clear()
        self._keys.clear()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
