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
from rpcshare.shares.version_order import Newer, merged, newer, reconciled
from rpcshare.storage import (
    IDENTITY_KEY,
    SERVED_WITH_KEY,
    ObjectInfo,
    ObjectStore,
    PreconditionFailedError,
    StoredObject,
    StoreError,
)

__all__ = ["Migration", "Survey", "migrate", "survey"]

T = TypeVar("T", ObjectInfo, StoredObject)

_AT_ONCE = 16  # objects
_ATTEMPTS = 10  # at replacing an object that a server may be writing
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
    newer: int = 0
    """What the target has instead of them is newer, or they are of a share that has ended there."""
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
    doing it again, without them, brings what is missing. What was ended in either store stays ended: a share
    that was deleted or made private, a key that was revoked.

    Args:
        source: where from.
        target: where to.
        overwrite: whether to replace what the target has of its own. Nothing that was ended comes back by it.
        on_copied: called with the size of each object that has been copied, or was there.
        on_verified: called with the size of each object that has been compared.

    Raises:
        StoreError: one of them failed.
    """
    copying = _Copying(source, target, overwrite=overwrite, on_copied=on_copied)
    for stage in _Stage:
        await for_each(_groups(source, target, stage), copying.copy, at_once=_AT_ONCE)
    await copying.verify(on_verified)
    return copying.migration


_Pair = tuple[ObjectInfo, ObjectInfo | None]


async def _groups(source: ObjectStore, target: ObjectStore, stage: _Stage) -> AsyncIterator[list[_Pair]]:
    """Yield the source's objects of a stage with the target's: those of one share together, in key order."""
    group: list[_Pair] = []
    async for ours, theirs in _merged(source.list(stage.value), target.list(stage.value)):
        if ours is None or _Stage.of(ours.key) is not stage:
            continue
        share = _share_of(ours.key)
        if group and (share is None or share != _share_of(group[0][0].key)):
            yield group
            group = []
        group.append((ours, theirs))
    if group:
        yield group


def _share_of(key: str) -> tuple[str, str] | None:
    """Return id and generation of the share that an object belongs to, if it is one of many."""
    kind, *rest = key.split("/")
    if kind == "share" and len(rest) > 2:
        return rest[0], rest[1]
    if kind == "index" and len(rest) == 2:
        return rest[0], rest[1]
    return None


def _is_content(key: str) -> bool:
    return "/log/" in key or "/snapshot/" in key


class _Copying:
    """One run, and what it knows of the target."""

    def __init__(
        self, source: ObjectStore, target: ObjectStore, *, overwrite: bool, on_copied: Callable[[int], None]
    ) -> None:
        self.migration = Migration()
        self._source = source
        self._target = target
        self._overwrite = overwrite
        self._on_copied = on_copied
        self._room = _Room(_BYTES_AT_ONCE)
        self._ended: dict[tuple[str, str], bool] = {}  # by share and generation
        self._reconciled: dict[tuple[str, str], objects.Head] = {}  # likewise: of both stores' settings
        self._target_is_served: bool | None = None  # not known yet

    async def copy(self, group: list[_Pair]) -> None:  # noqa: C901 -- the order of the steps is what keeps a copy safe
        """Copy objects that belong together, one after the other."""
        share = _share_of(group[0][0].key)
        if share is not None and await self._has_ended(*share):
            for info, there in group:
                self.migration.unchanged += there is not None
                self._on_copied(info.size)
            return
        if share is not None and not await self._continues(share, group):
            for info, there in group:
                if there is None:
                    self.migration.differing[info.key] = "servers may have gone on with both logs"
                self.migration.unchanged += there is not None
                self._on_copied(info.size)
            return
        for position, (info, there) in enumerate(group):
            async with self._room.taken(info.size):
                is_well = await self._copy_one(info.key, is_there=there is not None)
            self._on_copied(info.size)
            if not is_well and share is not None:
                # Both stores have gone on with the log. The source's part makes no sense behind the target's.
                for left, _ in group[position + 1 :]:
                    if left.key.rpartition("/")[0] != info.key.rpartition("/")[0]:
                        break
                    self.migration.differing[left.key] = f"is behind {info.key}"
                for left, _ in group[position + 1 :]:
                    self._on_copied(left.size)
                return

    async def _continues(self, share: tuple[str, str], group: list[_Pair]) -> bool:
        """Whether the source's objects of a share fit those of the target.

        Entries may be gone that a snapshot replaces. So what a server has written to the target by itself
        could be hidden behind the source's snapshot, or be followed by what does not belong behind it.
        """
        if not _is_content(group[0][0].key) or all(there is not None for _, there in group):
            return True
        if not await self._is_served():
            return True  # what it has is a copy, which nobody has gone on with
        prefix = f"share/{share[0]}/{share[1]}/"
        theirs = {info.key async for info in self._target.list(prefix)}
        if not theirs:
            return True
        # The last entry that the target has, if it is in both: then they are compared before more is copied.
        last = objects.numbered(objects.log_prefix(*share), max(map(objects.number_of, theirs)))
        return last in theirs and any(info.key == last for info, _ in group)

    async def _is_served(self) -> bool:
        """Whether a server has ever run on the target, which then has an identity."""
        if self._target_is_served is None:
            self._target_is_served = await self._target.get(IDENTITY_KEY) is not None
        return self._target_is_served

    async def _copy_one(self, key: str, *, is_there: bool) -> bool:  # noqa: C901, PLR0911 -- one outcome for each state that the two stores may be in
        """Copy an object; return whether the target has it, or something newer, now."""
        found = await self._source.get(key)
        if found is None:
            return True  # a server has just removed it
        if not is_there:
            try:
                await self._target.put(key, found.body, if_absent=True)
            except PreconditionFailedError:
                pass
            else:
                self.migration.copied += 1
                return True
        found = self._with_reconciled_settings(found)
        for _ in range(_ATTEMPTS):
            there = await self._target.get(key)
            if there is not None and there.body == found.body:
                self.migration.unchanged += 1
                return True
            body = self._replacement(found, there)
            if body is None:
                if there is not None and newer(found, there) is Newer.TARGET:
                    return True  # which is counted when it is verified
                self.migration.differing[key] = "the target has another"
                return False
            if there is not None and body == there.body:
                return True
            try:
                await self._target.put(
                    key, body, if_absent=there is None, if_match=None if there is None else there.etag
                )
            except PreconditionFailedError:
                continue  # a server has just written it
            self.migration.copied += 1
            if body != found.body and _Stage.of(key) is _Stage.HEADS:
                head = objects.decode_head(body)
                self._reconciled[key.split("/")[1], head.generation] = head
            await self._remove_if_ended(found)
            return True
        self.migration.differing[key] = "a server writes it in the target all the time"
        return False

    def _with_reconciled_settings(self, found: StoredObject) -> StoredObject:
        """Return a row with what its head says now, if that is what came of the settings of both stores."""
        share = _share_of(found.key)
        head = self._reconciled.get(share) if share is not None else None
        if head is None or _Stage.of(found.key) is not _Stage.ROWS:
            return found
        try:
            row = objects.decode_index(found.body)
        except StoreError:
            return found
        row = msgspec.structs.replace(row, expires_at=head.expires_at, revision=head.revision)
        return StoredObject(found.key, objects.encode_index(row), found.etag)

    def _replacement(self, found: StoredObject, there: StoredObject | None) -> bytes | None:  # noqa: PLR0911 -- likewise
        """Return what is to be put in the place of the target's object; None if it is to stay."""
        if there is None:
            return found.body
        if _Stage.of(found.key) is _Stage.HEADS and (closed := reconciled(found, there)) is not None:
            return closed
        match newer(found, there), _Stage.of(found.key):
            case Newer.SOURCE, _:
                return found.body
            case Newer.TARGET, _:
                return None
            case _, _Stage.ROWS:
                # What cannot be read cannot be newer, and is made again from the log.
                return merged(found, there) or found.body
            case _, _Stage.ASIDE:
                return found.body
            case _, _Stage.HEADS if not found.key.endswith("/head"):
                return found.body  # a share in the older layout, which is replaced as a whole
            case _:
                return found.body if self._overwrite else None

    async def _has_ended(self, share_id: str, generation: str) -> bool:
        """Whether the target knows a generation of a share as one that is over."""
        key = (share_id, generation)
        if key not in self._ended:
            head = await self._target.get(objects.head_key(share_id))
            self._ended[key] = False
            if head is not None:
                try:
                    live = objects.decode_head(head.body)
                except StoreError:
                    return False  # which is told of when the heads are copied
                is_former = live.generation != generation and not self._overwrite
                self._ended[key] = is_former or (live.generation == generation and live.deleted)
        return self._ended[key]

    async def _remove_if_ended(self, found: StoredObject) -> None:
        """Remove from the target what a former run has copied of a share that has been deleted since."""
        if _Stage.of(found.key) is not _Stage.HEADS or not found.key.endswith("/head"):
            return
        head = objects.decode_head(found.body)
        if not head.deleted:
            return
        share_id = found.key.split("/")[1]
        prefix = f"share/{share_id}/{head.generation}/"
        pairs = _merged(self._source.scan(prefix), self._target.scan(prefix))
        keys = [
            theirs.key
            async for ours, theirs in pairs
            if theirs is not None and (ours is None or newer(ours, theirs) is Newer.SOURCE)
        ]
        await self._target.delete([*keys, objects.index_key(share_id, head.generation)])

    async def verify(self, on_verified: Callable[[int], None]) -> None:
        """Compare the stores."""
        migration = self.migration
        async for ours, theirs in _merged(self._source.scan(""), self._target.scan("")):
            if ours is None:
                migration.surplus += 1
                continue
            if theirs is None:
                share = _share_of(ours.key)
                if share is not None and await self._has_ended(*share):
                    migration.newer += 1
                else:
                    migration.differing.setdefault(ours.key, "the target has none")
            elif ours.body != theirs.body:
                is_row = _Stage.of(ours.key) is _Stage.ROWS
                if newer(ours, theirs) is Newer.TARGET or (is_row and merged(ours, theirs) == theirs.body):
                    migration.newer += 1
                else:
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
        if each.key not in (IDENTITY_KEY, SERVED_WITH_KEY):
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
