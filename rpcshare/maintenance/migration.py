"""From one store to another, object by object.

What is copied first is what nothing refers to yet; then the heads, by which a share is there; then the
rows that listings show. So whoever looks at the target meanwhile sees a share as a whole, or not at all.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import TypeVar

import msgspec

from rpcshare.maintenance.concurrently import for_each
from rpcshare.shares import objects
from rpcshare.storage import (
    IDENTITY_KEY,
    ObjectInfo,
    ObjectStore,
    PreconditionFailedError,
    StoredObject,
    StoreError,
)

__all__ = ["Migration", "Survey", "migrate", "survey"]

T = TypeVar("T", ObjectInfo, StoredObject)

_AT_ONCE = 16  # objects
_BYTES_AT_ONCE = 64 * 2**20  # unless one object is larger


class _Stage(Enum):
    """When an object is copied: in this order. The value is what the keys begin with."""

    CONTENT = ""
    HEADS = "share/"
    ASIDE = objects.ASIDE_PREFIX
    ROWS = objects.INDEX_PREFIX

    @classmethod
    def of(cls, key: str) -> "_Stage":
        prefix, *rest = key.split("/")
        for stage in (cls.ASIDE, cls.ROWS):
            if key.startswith(stage.value):
                return stage
        # A share in the older layout is one object, its own head.
        is_head = prefix == "share" and (len(rest) == 1 or rest[1:] == ["head"])
        return cls.HEADS if is_head else cls.CONTENT


class Survey(msgspec.Struct):
    """How much there is in a store."""

    objects: int = 0
    size: int = 0
    """In bytes."""


class Migration(msgspec.Struct):
    """What became of the objects of a store."""

    copied: int = 0
    unchanged: int = 0
    """The target had them already, and just so."""
    differing: dict[str, str] = {}
    """What the target has not, or has otherwise: by key, why."""
    surplus: int = 0
    """How many objects the target has that the source has not."""


async def survey(store: ObjectStore) -> Survey:
    """Return how much there is to be copied.

    Raises:
        StoreError: the store failed.
    """
    found = Survey()
    async for info in _without_identity(store.list("")):
        found.objects += 1
        found.size += info.size
    return found


async def migrate(
    source: ObjectStore,
    target: ObjectStore,
    *,
    overwrite: bool = False,
    on_copied: Callable[[int], None] = lambda _size: None,
    on_verified: Callable[[int], None] = lambda _size: None,
) -> Migration:
    """Copy all objects of ``source`` to ``target``, and then compare the two.

    Done again after an interruption, it goes on where it was. If servers write to the source meanwhile,
    doing it again, without them, brings what is missing.

    Args:
        source: where from.
        target: where to.
        overwrite: whether to replace what the target has of its own.
        on_copied: called with the size of each object that has been copied, or was there.
        on_verified: called with the size of each object that has been compared.

    Raises:
        StoreError: one of them failed.
    """
    migration = Migration()
    room = _Room(_BYTES_AT_ONCE)

    async def copy(pair: tuple[ObjectInfo, ObjectInfo | None]) -> None:
        info, there = pair
        async with room.taken(info.size):
            await _copy(source, target, info.key, there is not None, overwrite, migration)
        on_copied(info.size)

    for stage in _Stage:
        await for_each(_pairs(source, target, stage), copy, at_once=_AT_ONCE)
    await _verify(source, target, migration, on_verified)
    return migration


async def _pairs(
    source: ObjectStore, target: ObjectStore, stage: _Stage
) -> AsyncIterator[tuple[ObjectInfo, ObjectInfo | None]]:
    async for ours, theirs in _merged(source.list(stage.value), target.list(stage.value)):
        if ours is not None and _Stage.of(ours.key) is stage:
            yield ours, theirs


async def _copy(
    source: ObjectStore, target: ObjectStore, key: str, is_there: bool, overwrite: bool, migration: Migration
) -> None:
    found = await source.get(key)
    if found is None:
        return  # a server has just removed it
    if not is_there:
        try:
            await target.put(key, found.body, if_absent=True)
        except PreconditionFailedError:
            pass
        else:
            migration.copied += 1
            return
    there = await target.get(key)
    if there is not None and there.body == found.body:
        migration.unchanged += 1
    elif there is None or overwrite or _is_replaceable(found, there):
        await target.put(key, found.body)
        migration.copied += 1
    else:
        migration.differing[key] = "the target has another"


def _is_replaceable(found: StoredObject, there: StoredObject) -> bool:
    """Whether what is there may be what a former run has copied, before the source's changed.

    Entries, snapshots, and who was the first to share a session never do.
    """
    match _Stage.of(found.key):
        case _Stage.ROWS:
            return True
        case _Stage.CONTENT:
            return False
    if not found.key.endswith("/head"):
        return True
    try:
        return objects.decode_head(found.body).generation == objects.decode_head(there.body).generation
    except StoreError:
        return False


async def _verify(
    source: ObjectStore, target: ObjectStore, migration: Migration, on_verified: Callable[[int], None]
) -> None:
    async for ours, theirs in _merged(source.scan(""), target.scan("")):
        if ours is None:
            migration.surplus += 1
            continue
        if theirs is None:
            migration.differing.setdefault(ours.key, "the target has none")
        elif ours.body != theirs.body:
            migration.differing.setdefault(ours.key, "the target has another")
        on_verified(len(ours.body))


async def _merged(
    ours: AsyncIterator[T], theirs: AsyncIterator[T]
) -> AsyncIterator[tuple[T | None, T | None]]:
    """Yield what two listings, both in key order, have: side by side where the keys are the same.

    What tells the stores apart is left out: a copy is another store.
    """
    ours, theirs = _without_identity(ours), _without_identity(theirs)
    one, other = await anext(ours, None), await anext(theirs, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.key < other.key):
            yield one, None
            one = await anext(ours, None)
        elif one is None or other.key < one.key:
            yield None, other
            other = await anext(theirs, None)
        else:
            yield one, other
            one, other = await anext(ours, None), await anext(theirs, None)


async def _without_identity(found: AsyncIterator[T]) -> AsyncIterator[T]:
    async for each in found:
        if each.key != IDENTITY_KEY:
            yield each


class _Room:
    """Memory for what is being copied."""

    def __init__(self, size: int) -> None:
        self._size = size  # bytes
        self._left = size
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Wait for ``size`` bytes, or all there are, and keep them meanwhile."""
        size = min(size, self._size)
        async with self._changed:
            await self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            async with self._changed:
                self._left += size
                self._changed.notify_all()
