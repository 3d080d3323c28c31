"""Looking a store over, and putting right what can be put right for certain.

Servers may be at work meanwhile, and what they are in the middle of looks wrong. So what does is looked
at again a moment later, and nothing is removed before a grace period is over, within which a server may
still rely on it (see :mod:`rpcshare.shares.open_share`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from time import monotonic

from rpcshare.maintenance.check_share import Look, look_at
from rpcshare.maintenance.concurrently import for_each
from rpcshare.maintenance.findings import Problem, Report
from rpcshare.maintenance.stored_keys import Shelf, shelves
from rpcshare.shares import objects
from rpcshare.shares.journal import read_head
from rpcshare.shares.rollback import HighWaterMarks, described
from rpcshare.shares.share_identity import is_share_id
from rpcshare.storage import ObjectInfo, ObjectStore, PreconditionFailedError, StoredObject, StoreError

__all__ = ["examine"]

_AT_ONCE = 8
_DELETED_AT_ONCE = 500  # keys


async def examine(
    store: ObjectStore,
    *,
    fix: bool = False,
    grace: float = 60.0,
    patience: float = 2.0,
    on_share: Callable[[], None] = lambda: None,
    on_wait: Callable[[float], None] = lambda _seconds: None,
    marks: HighWaterMarks | None = None,
) -> Report:
    """Look over all shares of ``store`` and what is kept about them.

    Args:
        store: which may be in use. Nothing is written to it unless ``fix``.
        fix: whether to rebuild indexes and to remove what is left over. What cannot be understood, or
            may be the rest of something, is never touched.
        grace: seconds before anything is removed; no less than any server's, or 0 if none is running.
        patience: seconds before what looks wrong is looked at again.
        on_share: called after each share.
        on_wait: called with the seconds left, if there is a wait for ``grace``.
        marks: what a server has seen in the store, which is compared with what is there.

    Raises:
        StoreError: the store failed.
    """
    examination = _Doctor(store, on_share, marks)
    await examination.look(patience)
    if fix:
        await examination.repair()
        if (left := examination.seen_at + grace - monotonic()) > 0 and examination.has_refuse:
            on_wait(left)
            await asyncio.sleep(left)
        await examination.sweep()
    return examination.report()


class _Doctor:
    def __init__(
        self, store: ObjectStore, on_share: Callable[[], None], marks: HighWaterMarks | None
    ) -> None:
        self.seen_at = 0.0  # when all that is to be removed was known to be
        self._store = store
        self._on_share = on_share
        self._marks = marks
        self._rows: dict[str, list[str]] = {}  # the generations that have rows, by share id
        self._looks: list[Look] = []  # at what is, or was, a share, and has something to be told of
        self._shares = self._older = 0
        self._others = Look("")  # at what is no share

    @property
    def has_refuse(self) -> bool:
        """Whether there is anything to be removed."""
        return any(look.leftovers or look.superfluous for look in (*self._looks, self._others))

    async def look(self, patience: float) -> None:
        """Look at everything, and twice at what looks wrong."""
        await self._read_rows()
        unseen = set(self._rows)
        suspects: dict[str, None] = {}

        async def first_look(shelf: Shelf) -> None:
            unseen.discard(shelf.share_id)
            look = await look_at(self._store, shelf, self._rows.get(shelf.share_id, ()))
            if look.findings:
                suspects[shelf.share_id] = None
            else:
                self._keep(look)
            self._on_share()

        await for_each(shelves(self._store), first_look, at_once=_AT_ONCE)
        suspects |= dict.fromkeys(sorted(unseen))
        if suspects:
            await asyncio.sleep(patience)
        await for_each(_each(suspects), self._look_again, at_once=_AT_ONCE)
        await self._look_at_others()
        await self._look_at_marks()
        self.seen_at = monotonic()

    async def repair(self) -> None:
        """Put right what can be without removing anything that a server may rely on."""
        for look in (*self._looks, self._others):
            for finding, repair in look.repairs:
                try:
                    finding.fixed = await repair()
                except StoreError:
                    await self._store.check()  # that answers, so it is the object

    async def sweep(self) -> None:
        """Remove what is left over, and what is superfluous."""
        for look in (*self._looks, self._others):
            keys, look.superfluous = look.superfluous, []
            live = await self._live_generation(look.share_id) if look.leftovers else None
            for finding, leftover in look.leftovers:
                # A share that is just being restored looked like the rest of one.
                if live is None or not any(_generation_of(key) == live for key in leftover):
                    keys += leftover
                    finding.fixed = True
            for start in range(0, len(keys), _DELETED_AT_ONCE):
                await self._store.delete(keys[start : start + _DELETED_AT_ONCE])

    def report(self) -> Report:
        """Return what there is to be told."""
        looks = (*self._looks, self._others)
        return Report(
            shares=self._shares,
            older=self._older,
            superfluous=sum(len(look.superfluous) for look in looks),
            findings=[finding for look in looks for finding in look.findings],
        )

    def _keep(self, look: Look) -> None:
        self._shares += look.is_share
        self._older += look.is_older
        if look.findings or look.superfluous:
            self._looks.append(look)

    async def _look_again(self, share_id: str) -> None:
        rows = self._rows.get(share_id, ())
        listed = shelves(self._store, share_id)
        found = [shelf async for shelf in listed if shelf.share_id == share_id]
        for shelf in found or [Shelf(share_id)]:
            self._keep(await look_at(self._store, shelf, rows))

    async def _read_rows(self) -> None:
        async for info in self._store.list(objects.INDEX_PREFIX):
            _, share_id, *generation = info.key.split("/")
            if not is_share_id(share_id) or len(generation) > 1:
                self._others.add(info.key, Problem.UNKNOWN, "nothing has such a key")
            else:
                self._rows.setdefault(share_id, []).append("".join(generation))

    async def _look_at_others(self) -> None:
        async def look(info: ObjectInfo) -> None:
            try:
                found = await self._store.get(info.key)
                if found is not None:
                    objects.decode_session_owner(found.body)
            except StoreError as exc:
                await self._store.check()  # that answers, so it is the object
                self._others.add(info.key, Problem.DAMAGED, str(exc))

        await for_each(self._store.list("session/"), look, at_once=_AT_ONCE)
        probes = [info.key async for info in self._store.list("probe/")]
        self._others.add_leftover("probe/", "of servers that tried the store", probes)

    async def _look_at_marks(self) -> None:
        marks = self._marks
        if marks is None:
            return

        async def look(key: str) -> None:
            found = await self._store.get(key)
            newest = marks.newer_than(key, None if found is None else found.body)
            if newest is None:
                return
            has = "the store has an older one" if found is not None else "the store has none"
            told = f"{has}, and a server has seen that {described(key, newest)}"
            finding = self._others.add(key, Problem.ROLLED_BACK, told)
            if found is not None or marks.is_newest(key, newest):
                self._others.repairs.append((finding, partial(_put_back, self._store, key, found, newest)))

        await for_each(_each(marks), look, at_once=_AT_ONCE)

    async def _live_generation(self, share_id: str) -> str | None:
        found = await read_head(self._store, share_id) if share_id else None
        return found.head.generation if found is not None and not found.head.deleted else None


async def _put_back(store: ObjectStore, key: str, found: StoredObject | None, newest: bytes) -> bool:
    try:
        await store.put(key, newest, if_absent=found is None, if_match=found.etag if found else None)
    except PreconditionFailedError:  # a server has just done so
        return False
    return True


def _generation_of(key: str) -> str | None:
    """Return the generation in a key of the form ``PREFIX/ID/GENERATION…``."""
    _, _, *rest = key.split("/")
    return rest[0] if rest else None


async def _each(keys: Iterable[str]) -> AsyncIterator[str]:
    for key in keys:
        yield key
