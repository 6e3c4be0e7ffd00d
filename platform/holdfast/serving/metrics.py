"""What the gateway counts, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """One registry per gateway, so that two in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("holdfast_requests_total", "Requests by task and outcome.", ["task", "outcome"], registry=self.registry)
        self.seconds = Histogram(
            "holdfast_request_duration_seconds", "From arrival to answer.", ["task"], registry=self.registry, buckets=BUCKETS_S
        )
        self.rows = Counter("holdfast_predictions_total", "Texts answered, by task and route.", ["task", "route"], registry=self.registry)

        self.cached_rows = Counter(
            "holdfast_cached_predictions_total", "Texts answered from the result cache, by task; counted in predictions too.", ["task"],
            registry=self.registry,
        )  # fmt: skip
        self.truncated_rows = Counter(
            "holdfast_truncated_predictions_total", "Texts of which only a part was read, by task.", ["task"], registry=self.registry
        )
        self.dropped_slices = Counter(
            "holdfast_dropped_slices_total", "Slices of texts that the contract does not name, by task.", ["task"], registry=self.registry
        )
        self.shadows = Counter(
            "holdfast_shadow_copies_total", "Copies for a challenger: answered, dropped under load, failed.", ["task", "outcome"],
            registry=self.registry,
        )  # fmt: skip

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when somebody asks."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def count(self, name: str, text: str, values: Callable[[], Mapping[str, float]]) -> None:
        """Counters by outcome that somebody else keeps, read when somebody asks. ``name`` without its `_total`."""
        self.registry.register(_Kept(name, text, values))

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)


class _Kept(Collector):
    def __init__(self, name: str, text: str, values: Callable[[], Mapping[str, float]]) -> None:
        self._name, self._text, self._values = name, text, values

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=["outcome"])
        for outcome, value in self._values().items():
            family.add_metric([outcome], value)
        yield family
