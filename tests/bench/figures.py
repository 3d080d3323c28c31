"""What a benchmark found out."""

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

    @property
    def measured(self) -> float:
        """What is held against the target."""
        return self.ours if self.peer is None else self.ours / self.peer
