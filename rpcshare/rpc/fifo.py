"""A queue that is small while it is empty: an empty ``deque`` takes 760 bytes, of several in each session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["Fifo"]

T = TypeVar("T")


class Fifo(Generic[T]):
    """What is first in is first out. Each takes a constant time, over many."""

    __slots__ = ("_arrived", "_leaving")

    def __init__(self) -> None:
        self._arrived: list[T] = []
        self._leaving: list[T] = []  # the next to leave is the last

    def __len__(self) -> int:
        return len(self._arrived) + len(self._leaving)

    def append(self, item: T) -> None:
        """Add ``item`` behind all others."""
        self._arrived.append(item)

    def extend(self, items: Iterable[T]) -> None:
        """Add ``items`` behind all others."""
        self._arrived.extend(items)

    def popleft(self) -> T:
        """Take out the one that was added first. Raises IndexError if there is none."""
        if not self._leaving:
            if len(self._arrived) == 1:  # as nearly always
                return self._arrived.pop()
            self._leaving, self._arrived = self._arrived, self._leaving
            self._leaving.reverse()
        return self._leaving.pop()

    def take_all(self) -> list[T]:
        """Take out all, in order."""
        taken = self._leaving[::-1] + self._arrived
        self._leaving, self._arrived = [], []
        return taken
