"""The keys of shares, taken apart: what each object should be."""

import re
from collections.abc import AsyncIterator, Iterator

import msgspec

from rpcshare.shares import objects
from rpcshare.shares.share_identity import is_share_id
from rpcshare.storage import ObjectStore

__all__ = ["Shelf", "shelves"]

_NUMBERED = re.compile(r"([0-9a-f]{16})/(log|snapshot)/([0-9]{12})")


class Shelf(msgspec.Struct):
    """What is stored under the id of one share. Numbers are ascending."""

    share_id: str
    older_key: str | None = None
    """That of the one object here, if that is a share in the older layout. What has a log has a shelf of
    its own."""
    has_head: bool = False
    logs: dict[str, list[int]] = {}
    """The numbers of the entries, by generation."""
    snapshots: dict[str, list[int]] = {}
    unknown: list[str] = []
    """Keys that mean nothing here."""

    @property
    def generations(self) -> list[str]:
        """All of which there is something."""
        return sorted({*self.logs, *self.snapshots})

    def keys(self, generation: str) -> Iterator[str]:
        """Yield the keys of all that there is of a generation."""
        snapshot = objects.snapshot_prefix(self.share_id, generation)
        yield from self.log_keys(generation)
        yield from (objects.numbered(snapshot, number) for number in self.snapshots.get(generation, ()))

    def log_keys(self, generation: str) -> Iterator[str]:
        """Yield the keys of the entries that there are of a generation."""
        log = objects.log_prefix(self.share_id, generation)
        yield from (objects.numbered(log, number) for number in self.logs.get(generation, ()))

    def put(self, key: str) -> None:
        """Take in one more key."""
        rest = key.removeprefix(f"share/{self.share_id}/")
        if not is_share_id(self.share_id):
            self.unknown.append(key)
        elif rest == "head":
            self.has_head = True
        elif found := _NUMBERED.fullmatch(rest):
            generation, kind, number = found.groups()
            numbers = self.logs if kind == "log" else self.snapshots
            numbers.setdefault(generation, []).append(int(number))
        else:
            self.unknown.append(key)


async def shelves(store: ObjectStore, ids: str = "") -> AsyncIterator[Shelf]:
    """Yield what is stored under each id that begins with ``ids``: what is set aside last.

    Raises:
        StoreError: the store failed.
    """
    shelf: Shelf | None = None
    async for info in store.list(f"share/{ids}"):
        _, share_id, *rest = info.key.split("/")
        if not rest:
            yield _legacy_shelf(share_id, info.key)
            continue
        if shelf is None or shelf.share_id != share_id:
            if shelf is not None:
                yield shelf
            shelf = Shelf(share_id)
        shelf.put(info.key)
    if shelf is not None:
        yield shelf
    async for info in store.list(f"{objects.ASIDE_PREFIX}{ids}"):
        yield _legacy_shelf(info.key.removeprefix(objects.ASIDE_PREFIX), info.key)


def _legacy_shelf(share_id: str, key: str) -> Shelf:
    if is_share_id(share_id):
        return Shelf(share_id, older_key=key)
    return Shelf(share_id, unknown=[key])
