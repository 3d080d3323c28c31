"""What stores around another store have in common: what they do not change is done by the one inside."""

from collections.abc import Sequence

from rpcshare.storage.store import AtomicStore, MeasuredStore, ObjectStore, Put, StoreUsage

__all__ = ["StoreWrapper"]


class StoreWrapper:
    """The base of such a store. It reads, writes and lists by itself."""

    def __init__(self, inner: ObjectStore) -> None:
        """Stand before ``inner``; closing this closes it."""
        self._inner = inner

    async def check(self) -> None:
        """Return if the store inside answers now; raise :class:`~rpcshare.storage.StoreError` if not."""
        await self._inner.check()

    async def close(self) -> None:
        """Close the store inside."""
        await self._inner.close()

    @property
    def is_atomic(self) -> bool:
        """Whether :meth:`apply` is."""
        return isinstance(self._inner, AtomicStore) and self._inner.is_atomic

    async def apply(self, puts: Sequence[Put], deleted: Sequence[str]) -> None:
        """Write ``puts`` and remove the objects at ``deleted``, all or none.

        Raises:
            PreconditionFailedError: a condition does not hold.
            TypeError: the store inside cannot do so.
        """
        if not isinstance(self._inner, AtomicStore):
            raise TypeError("the store inside writes one object at a time")
        await self._inner.apply(puts, deleted)

    def usage(self) -> StoreUsage | None:
        """Return how much room the store inside takes and has; None if it is in no file."""
        return self._inner.usage() if isinstance(self._inner, MeasuredStore) else None
