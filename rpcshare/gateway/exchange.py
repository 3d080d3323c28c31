"""One request from its admission to its end, and the counts of all."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from rpcshare.gateway.keys import ModelKey
from rpcshare.gateway.metering import AnswerMeter, Usage, estimated
from rpcshare.gateway.models import Model
from rpcshare.gateway.wires import ModelRequest

__all__ = ["Exchange", "GatewayCounts"]


@dataclass
class GatewayCounts:
    """What has gone through a gateway, for metrics."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By model and outcome: ``ok``, ``error`` (the provider's), ``failed`` (it gave no whole answer),
    ``left`` (the agent went away) or ``ended`` (its key was revoked)."""
    refused: Counter[str] = field(default_factory=Counter)
    """Requests that no provider saw, by reason."""
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By model and kind: ``input``, ``output``, ``cache_read``, ``cache_write``."""
    dollars: Counter[str] = field(default_factory=Counter)
    """By model, in millionths."""
    estimates: int = 0
    """Requests whose usage was estimated."""
    under_way: int = 0

    def count(self, model: str, usage: Usage) -> None:
        """Count what was used."""
        for kind in ("input", "output", "cache_read", "cache_write"):
            self.tokens[model, kind] += getattr(usage, kind)
        self.dollars[model] += round(usage.cost * 1_000_000)
        self.estimates += usage.is_estimated


class Exchange:
    """One request that was admitted, from then on to its end."""

    def __init__(self, model: Model, asked: ModelRequest) -> None:
        self.model = model
        self.asked = asked
        self.key = ModelKey("")
        self.ending: asyncio.Timeout | None = None
        self.ended_because = ""
        self.is_sent = False
        self.is_free = False
        self.meter: AnswerMeter | None = None
        self.outcome = "left"
        self.seen_at = time.monotonic()

    def end(self, why: str) -> None:
        """End it now, whatever it does."""
        if self.ending is not None and not self.ended_because:
            self.ended_because = why
            self.ending.reschedule(0)

    def usage(self) -> Usage:
        """Return what it has used, as far as can be known."""
        if not self.is_sent or self.is_free:
            return Usage()
        if self.meter is None:
            return estimated(self.model, self.asked.tokens)
        return self.meter.usage(self.model, self.asked.tokens)
