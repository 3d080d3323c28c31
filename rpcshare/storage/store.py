"""What the share log asks of a place that keeps objects.

An object store maps keys to immutable bodies and offers one thing more: a write that succeeds only if
nobody else wrote first. That is all that the share log needs to order any number of writers.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = [
    "AtomicStore",
    "MeasuredStore",
    "ObjectInfo",
    "ObjectStore",
    "PreconditionFailedError",
    "Put",
    "StoreError",
    "StoreUsage",
    "StoredObject",
]


class StoreError(Exception):
    """The store could not do what was asked: unreachable, full, broken or too slow.

    Whether a write that failed so took place is not known, so whoever retries must read first.

    Attributes:
        reason: what is wrong, for anybody: without the place of the store; empty if there are no such words.
    """

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


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


class StoreUsage(NamedTuple):
    """How much room a store in files takes, and has, in bytes."""

    file_bytes: int
    log_bytes: int
    """Of the write-ahead log."""
    free_bytes: int
    """Of the disk."""


class Put(NamedTuple):
    """One write among several, as :meth:`ObjectStore.put` takes it."""

    key: str
    body: bytes
    if_absent: bool = False
    if_match: str | None = None


class ObjectStore(Protocol):
    """Keeps objects by key. Keys are ASCII, parts separated by ``/``, at most 1,024 characters.

    Every method raises :class:`StoreError` when the store fails. A write that returned is durable.
    Listings are in ascending order of the keys' bytes.
    """

    async def get(self, key: str) -> StoredObject | None:
        """Return the object at ``key``, or None if there is none."""
        ...

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> Awaitable[str]:
        """Write ``body`` at ``key``, replacing what is there; await its etag.

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

    def delete(self, keys: Sequence[str]) -> Awaitable[None]:
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


@runtime_checkable
class AtomicStore(Protocol):
    """What a store may have besides: several writes that take place together or not at all."""

    is_atomic: bool
    """Whether they do: of a store around another, that one decides."""

    def apply(self, puts: Sequence[Put], deleted: Sequence[str]) -> Awaitable[None]:
        """Write ``puts`` and remove the objects at ``deleted``, all or none.

        Raises:
            PreconditionFailedError: a condition does not hold.
        """
        ...


@runtime_checkable
class MeasuredStore(Protocol):
    """What a store in files has besides."""

    def usage(self) -> StoreUsage | None:
        """Return how much room it takes and has; None if it is in no file."""
        ...
