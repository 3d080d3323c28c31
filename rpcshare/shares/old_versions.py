"""What slow readers hold of shares as they were, and a bound of that.

What a share holds is there once, for all who read it. A reader in the middle of a document or of a large
event holds the values of that version, though they have been replaced meanwhile. That is little while few
are. Where all of a share is written again and again, it is as much as all of it for each version in which a
reader has stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rpcshare.shares.content import Content
from rpcshare.shares.syncdata import Item

__all__ = ["BUDGET", "Hold", "OldVersions"]

BUDGET = 64 * 2**20
"""Bytes of replaced values that readers may hold."""

_LOWERED_TO = 3 / 4  # of the budget, when it is exceeded: so that it is some time until it is again

LetGo = Callable[[dict[str, object]], object]
"""Is called when a reader has to let go of a version, with what all of them may share who hold it."""


class _Version:
    """What some readers hold."""

    __slots__ = ("_base", "_content", "_items", "_replaced", "_size", "ends_reader", "holds", "value")

    def __init__(
        self, value: object, content: Content, items: Iterable[Item], size: int, *, ends_reader: bool
    ) -> None:
        self.value = value  # so that its id is nobody else's
        self.ends_reader = ends_reader
        self.holds: dict[Hold, LetGo] = {}
        self._content = content
        self._items = items
        self._size = size
        self._base = 0  # bytes of it that had been replaced when they were counted last
        self._replaced = content.replaced  # bytes of the content that had been replaced until then

    @property
    def at_most(self) -> int:
        """How many bytes of it have been replaced, at most."""
        return min(self._size, self._base + self._content.replaced - self._replaced)

    def count(self) -> int:
        """Return how many bytes of it have been replaced."""
        self._base = self._content.replaced_of(self._items)
        self._replaced = self._content.replaced
        return self.at_most


class OldVersions:
    """Those of one node."""

    def __init__(self, budget: int = BUDGET) -> None:
        """Have readers hold at most ``budget`` bytes of replaced values."""
        self._budget = budget
        self._versions: dict[int, _Version] = {}  # the oldest first

    def hold(
        self,
        value: object,
        content: Content,
        items: Iterable[Item],
        size: int,
        let_go: LetGo,
        *,
        ends_reader: bool = False,
    ) -> Hold:
        """Count a version as held by one more reader, until :meth:`Hold.end`.

        Args:
            value: the version, the same object for all who hold it.
            content: of which it is a version.
            items: what is in it.
            size: bytes of those.
            let_go: has the reader hold it no longer.
            ends_reader: whether that ends the reader, and so is done only if nothing else helps.
        """
        version = self._versions.get(id(value))
        if version is None:
            version = self._versions[id(value)] = _Version(
                value, content, items, size, ends_reader=ends_reader
            )
        hold = Hold(self._versions, version)
        version.holds[hold] = let_go
        return hold

    def review(self) -> None:
        """Have readers let go of the oldest versions while there is too much. Quick if there is not."""
        versions = list(self._versions.values())
        if sum(version.at_most for version in versions) <= self._budget:
            return
        held = {version: version.count() for version in versions}
        total = sum(held.values())
        if total <= self._budget:
            return
        for version, size in sorted(held.items(), key=lambda each: each[0].ends_reader):  # which is stable
            if total <= self._budget * _LOWERED_TO:
                return
            total -= size
            shared: dict[str, object] = {}
            for let_go in list(version.holds.values()) if size else ():
                let_go(shared)


class Hold:
    """One reader's hold of one version."""

    __slots__ = ("_version", "_versions")

    def __init__(self, versions: dict[int, _Version], version: _Version) -> None:
        self._versions = versions
        self._version = version

    def end(self) -> None:
        """Hold it no longer. Again is no error."""
        self._version.holds.pop(self, None)
        if not self._version.holds:
            self._versions.pop(id(self._version.value), None)
