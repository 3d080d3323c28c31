"""A store whose operations are measured and, where there is tracing, traced."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter
from types import TracebackType

from rpcshare.latencies import Latencies
from rpcshare.storage.store import ObjectInfo, ObjectStore, PreconditionFailedError, Put, StoredObject
from rpcshare.storage.store_wrapper import StoreWrapper
from rpcshare.tracing import Tracing

__all__ = ["ObservedStore"]


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
        with self._measured("get"):
            found = await self._inner.get(key)
        if found is not None:
            self.read_bytes += len(found.body)
        return found

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> Awaitable[str]:
        """Write ``body`` at ``key`` if the conditions hold; await its etag."""
        began_at = perf_counter()
        writing = self._inner.put(key, body, if_absent=if_absent, if_match=if_match)
        if self._tracing is None and isinstance(writing, asyncio.Future):
            writing.add_done_callback(partial(self._put_ended, began_at, len(body)))
            return writing
        return self._put(writing, len(body))

    async def _put(self, writing: Awaitable[str], size: int) -> str:
        with self._measured("put"):
            etag = await writing
        self.written_bytes += size
        return etag

    def _put_ended(self, began_at: float, size: int, writing: asyncio.Future[str]) -> None:
        error = None if writing.cancelled() else writing.exception()
        self.operations["put"].add(perf_counter() - began_at, has_failed=_is_failure(error))
        if error is None and not writing.cancelled():
            self.written_bytes += size

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove the objects at ``keys``; one that is not there is no error."""
        with self._measured("delete"):
            await self._inner.delete(keys)

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
        with self._measured("check"):
            await super().check()

    async def apply(self, puts: Sequence[Put], deleted: Sequence[str]) -> None:
        """Write ``puts`` and remove the objects at ``deleted``, all or none, as the store inside does."""
        with self._measured("apply"):
            await super().apply(puts, deleted)
        self.written_bytes += sum(len(put.body) for put in puts)

    def _measured(self, operation: str) -> _Measured:
        span = None
        if self._tracing is not None:
            span = self._tracing.client_span(f"store {operation}", {"db.operation.name": operation})
        return _Measured(self.operations[operation], span)


class _Measured:
    """The time of one operation, as a context. Every sync has one; a generator takes three times as long."""

    __slots__ = ("_began_at", "_latencies", "_span")

    def __init__(self, latencies: Latencies, span: AbstractContextManager[object] | None) -> None:
        self._latencies = latencies
        self._span = span

    def __enter__(self) -> None:
        if self._span is not None:
            self._span.__enter__()
        self._began_at = perf_counter()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._latencies.add(perf_counter() - self._began_at, has_failed=_is_failure(exc))
        if self._span is not None:
            self._span.__exit__(exc_type, exc, traceback)


def _is_failure(error: BaseException | None) -> bool:
    return isinstance(error, Exception) and not isinstance(error, PreconditionFailedError)
