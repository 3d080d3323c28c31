"""What happens to agents on this node, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rpcshare.agents.counts import AgentCounts

__all__ = ["AgentMetrics"]


class AgentMetrics(Collector):
    """Reads the counts when they are asked for."""

    def __init__(self, counts: AgentCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        counts = self._counts
        yield GaugeMetricFamily(
            "rpcshare_agent_processes", "Processes of agents that there are.", counts.processes
        )
        yield _labelled(
            "rpcshare_agent_process_starts",
            "Processes that were started, by outcome.",
            "outcome",
            counts.starts,
        )
        yield _labelled("rpcshare_agent_turns", "Turns that have ended, by how.", "reason", counts.turns)
        yield _labelled("rpcshare_agent_requests", "Approvals and questions.", "kind", counts.requests)


def _labelled(name: str, text: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
