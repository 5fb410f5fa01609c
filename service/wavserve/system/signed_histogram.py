"""A histogram of values that may be negative. Knows no metric by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import Histogram, Metric
from prometheus_client.registry import Collector


class SignedHistogram(Collector):
    """Buckets alone. OpenMetrics forbids a sum over negative values, and a count without a sum.

    The count is the bucket of `+Inf`. The library leaves out the sum alone, which strict parsers refuse.
    """

    def __init__(self, name: str, meaning: str, buckets: Sequence[float]) -> None:
        self._histogram = Histogram(name, meaning, buckets=buckets, registry=None)

    def observe(self, value: float) -> None:
        self._histogram.observe(value)

    def collect(self) -> Iterable[Metric]:
        for metric in self._histogram.collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_count")]
            yield metric

    def describe(self) -> Iterable[Metric]:
        """The registry asks it for the names that this one takes."""
        return self._histogram.describe()
