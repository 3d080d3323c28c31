"""What the share log asks of a place that keeps objects.

An object store maps keys to immutable bodies and offers one thing more: a write that succeeds only if
nobody else wrote first. That is all that the share log needs to order any number of writers.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

__all__ = ["ObjectInfo", "ObjectStore", "PreconditionFailedError", "StoreError", "StoredObject"]


class StoreError(Exception):
    """The store could not do what was asked: unreachable, full, broken or too slow.

    Whether a write that failed so took place is not known, so whoever retries must read first.
    """


class PreconditionFailedError(Exception):
    """A conditional write found the object in another state than it asked for; nothing changed."""


class ObjectInfo(NamedTuple):
    """One row of a listing."""

    key: str
    etag: str
    """Opaque. Differs whenever the body does; a store may give equal bodies the same one."""
    size: int
    """Of the body, in bytes."""


class StoredObject(NamedTuple):
    """An object and its body."""

    key: str
    body: bytes
    etag: str

    def __repr__(self) -> str:
        # asyncio's debug output prints results, and bodies are what users said.
        return f"StoredObject(key={self.key!r}, size={len(self.body)}, etag={self.etag!r})"


class ObjectStore(Protocol):
    """Keeps objects by key. Keys are ASCII, parts separated by ``/``, at most 1,024 characters.

    Every method raises :class:`StoreError` when the store fails. A write that returned is durable.
    Listings are in ascending order of the keys' bytes.
    """

    async def get(self, key: str) -> StoredObject | None:
        """Return the object at ``key``, or None if there is none."""
        ...

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write ``body`` at ``key``, replacing what is there, and return its etag.

        Both conditions together can never hold.

        Args:
            key: where to write.
            body: what to write.
            if_absent: write only if there is no object at ``key`` (``If-None-Match: *``).
            if_match: write only if the object at ``key`` has this etag (``If-Match``).

        Raises:
            PreconditionFailedError: the condition does not hold; nothing was written.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove the objects at ``keys``; one that is not there is no error."""
        ...

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is stored under ``prefix``, in key order, from behind ``start_after``."""
        ...

    def scan(self, prefix: str, *, start_after: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects under ``prefix`` with their bodies, in key order.

        An object that is deleted while the scan is under way may be left out.
        """
        ...

    async def check(self) -> None:
        """Return if the store answers now; raise :class:`StoreError` if it does not."""
        ...

    async def close(self) -> None:
        """Finish the writes under way and let go of every resource. No call may follow."""
        ...
