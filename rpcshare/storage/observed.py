"""A store whose operations are measured and, where there is tracing, traced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Sequence
from time import perf_counter
from typing import TypeVar

from rpcshare.latencies import Latencies
from rpcshare.storage.store import ObjectInfo, ObjectStore, PreconditionFailedError, Put, StoredObject
from rpcshare.storage.store_wrapper import StoreWrapper
from rpcshare.tracing import Tracing

__all__ = ["ObservedStore"]

T = TypeVar("T")


class ObservedStore(StoreWrapper):
    """An :class:`~rpcshare.storage.ObjectStore` that counts what the one inside is asked for.

    A condition that does not hold is no failure. Listings and scans are not timed: they take as long as
    whoever reads them.
    """

    def __init__(self, inner: ObjectStore, tracing: Tracing | None = None) -> None:
        """Measure ``inner``; closing this closes it."""
        super().__init__(inner)
        self._tracing = tracing
        self.operations: defaultdict[str, Latencies] = defaultdict(Latencies)
        """The times of each operation, by its name."""
        self.read_bytes = 0
        self.written_bytes = 0

    async def get(self, key: str) -> StoredObject | None:
        """Return the object at ``key``, or None if there is none."""
        found = await self._timed("get", self._inner.get(key))
        if found is not None:
            self.read_bytes += len(found.body)
        return found

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write ``body`` at ``key`` if the conditions hold, and return its etag."""
        writing = self._inner.put(key, body, if_absent=if_absent, if_match=if_match)
        etag = await self._timed("put", writing)
        self.written_bytes += len(body)
        return etag

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove the objects at ``keys``; one that is not there is no error."""
        await self._timed("delete", self._inner.delete(keys))

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is stored under ``prefix``, in key order, from behind ``start_after``."""
        return self._inner.list(prefix, start_after=start_after)

    async def scan(self, prefix: str, *, start_after: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects under ``prefix`` with their bodies, in key order."""
        async for found in self._inner.scan(prefix, start_after=start_after):
            self.read_bytes += len(found.body)
            held = [found]
            del found  # it may be large, and whoever takes it knows for how long
            yield held.pop()

    async def check(self) -> None:
        """Return if the store inside answers now; raise StoreError if it does not."""
        await self._timed("check", super().check())

    async def apply(self, puts: Sequence[Put], deleted: Sequence[str]) -> None:
        """Write ``puts`` and remove the objects at ``deleted``, all or none, as the store inside does."""
        await self._timed("apply", super().apply(puts, deleted))
        self.written_bytes += sum(len(put.body) for put in puts)

    async def _timed(self, operation: str, doing: Awaitable[T]) -> T:
        if self._tracing is None:
            return await self._counted(operation, doing)
        with self._tracing.client_span(f"store {operation}", {"db.operation.name": operation}):
            return await self._counted(operation, doing)

    async def _counted(self, operation: str, doing: Awaitable[T]) -> T:
        began_at, has_failed = perf_counter(), False
        try:
            return await doing
        except PreconditionFailedError:
            raise
        except Exception:
            has_failed = True
            raise
        finally:
            self.operations[operation].add(perf_counter() - began_at, has_failed=has_failed)
