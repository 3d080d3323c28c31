"""What a benchmark found out."""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Figure"]


class Figure(NamedTuple):
    """Ours, and the peer's on the same work in the same run, where there is one. Less is better."""

    name: str
    unit: str
    ours: float
    peer: float | None
    target: float
    """What ours is to be at most: times the peer's, or where there is no peer, in ``unit``."""
    peers: Mapping[str, float] = {}
    """What each peer measured, by its name, where there are several. ``peer`` is the least."""

    @property
    def measured(self) -> float:
        """What is held against the target."""
        return self.ours if self.peer is None else self.ours / self.peer
