"""What happens in sandboxes, in numbers. Names of system calls and reasons are from small sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from rpcshare.workspaces.sandboxing import SandboxedPrograms

__all__ = ["WorkspaceMetrics"]


class WorkspaceMetrics(Collector):
    """Reads the counts when they are asked for."""

    def __init__(self, programs: SandboxedPrograms) -> None:
        self._programs = programs

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        counts = self._programs.counts
        connections, sent, received = self._programs.traffic()
        yield CounterMetricFamily(
            "rpcshare_sandboxes_started", "Programs started in sandboxes.", counts.started
        )
        yield _counted("rpcshare_sandboxes_ended", "Programs ended, by why.", "reason", counts.ended)
        yield CounterMetricFamily("rpcshare_egress_connections", "Connections out of sandboxes.", connections)
        yield _counted(
            "rpcshare_egress_refused",
            "Connections out of sandboxes that were refused, by why.",
            "reason",
            counts.refused_connections,
        )
        traffic = {"sent": sent, "received": received}
        yield _counted(
            "rpcshare_egress_bytes", "Bytes that sandboxes sent and received.", "direction", traffic
        )
        yield _counted(
            "rpcshare_sandbox_refused_calls",
            "System calls refused in sandboxes; of each, one a second is counted.",
            "call",
            counts.refused_calls,
        )


def _counted(name: str, text: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
