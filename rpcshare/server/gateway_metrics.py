"""What agents ask of models, in numbers. Models are those of the settings, and reasons from a small set."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rpcshare.gateway.gateway import GatewayCounts

__all__ = ["GatewayMetrics"]


class GatewayMetrics(Collector):
    """Reads the counts when they are asked for."""

    def __init__(self, counts: GatewayCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        counts = self._counts
        requests = CounterMetricFamily(
            "rpcshare_model_requests", "Requests to models, by outcome.", labels=["model", "outcome"]
        )
        for (model, outcome), count in sorted(counts.requests.items()):
            requests.add_metric([model, outcome], count)
        yield requests
        refused = CounterMetricFamily(
            "rpcshare_model_requests_refused",
            "Requests to models that no provider has seen, by why.",
            labels=["reason"],
        )
        for reason, count in sorted(counts.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        tokens = CounterMetricFamily(
            "rpcshare_model_tokens", "Tokens that models have taken and given.", labels=["model", "kind"]
        )
        for (model, kind), count in sorted(counts.tokens.items()):
            tokens.add_metric([model, kind], count)
        yield tokens
        dollars = CounterMetricFamily(
            "rpcshare_model_dollars", "What that has cost, as far as it is known.", labels=["model"]
        )
        for model, millionths in sorted(counts.dollars.items()):
            dollars.add_metric([model], millionths / 1_000_000)
        yield dollars
        yield CounterMetricFamily(
            "rpcshare_model_usage_estimates",
            "Requests to models whose usage was estimated.",
            counts.estimates,
        )
        yield GaugeMetricFamily(
            "rpcshare_model_requests_under_way", "Requests to models that are under way.", counts.under_way
        )
