"""What happens to agents on one node, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["AgentCounts"]


@dataclass
class AgentCounts:
    """Counts since the start."""

    turns: Counter[str] = field(default_factory=Counter)
    """Turns that have ended, by how: ``completed``, ``error``, ``aborted``, ``interrupted``."""
    starts: Counter[str] = field(default_factory=Counter)
    """Processes that were started, by outcome: ``ok``, ``failed``."""
    requests: Counter[str] = field(default_factory=Counter)
    """What was asked, by kind: ``approval``, ``question``."""
    processes: int = 0
    """That there are now."""
