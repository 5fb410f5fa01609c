"""A model's memory and caches as Triton's metrics, with a stand-in for Triton's library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from wavserve.app.triton_gauges import EVERY_S, ModelMetrics
from wavserve.system.lookups import Lookups


@dataclass
class Metric:
    labels: dict[str, str]
    values: list[float] = field(default_factory=list)
    """a gauge's values, a counter's increments"""

    def set(self, value: float) -> None:
        self.values.append(value)

    def increment(self, value: float) -> None:
        self.values.append(value)


class Family:
    COUNTER, GAUGE = 0, 1
    made: ClassVar[dict[str, list[Metric]]] = {}

    def __init__(self, name: str, description: str, kind: int) -> None:
        assert description
        assert kind == (self.COUNTER if name.endswith("_total") else self.GAUGE)
        self.made[name] = self._metrics = []

    def Metric(self, labels: dict[str, str]) -> Metric:
        self._metrics.append(Metric(labels))
        return self._metrics[-1]


def test_gauges_have_the_models_name_and_are_set_once_a_second() -> None:
    now, held = 0.0, iter((10, 20))
    gauges = ModelMetrics("video_dit", {"model_weights_bytes": lambda: next(held)}, {}, Family, lambda: now)
    gauges.refresh()
    gauges.refresh()
    [gauge] = Family.made["wavserve_model_weights_bytes"]
    assert (gauge.labels, gauge.values) == ({"model": "video_dit"}, [10.0])
    now = EVERY_S
    gauges.refresh()
    assert gauge.values == [10.0, 20.0]


def test_a_counter_of_a_caches_lookups_grows_by_what_is_new() -> None:
    now, texts = 0.0, Lookups(hit=3)
    metrics = ModelMetrics("video_dit", {}, {"text": texts}, Family, lambda: now)
    metrics.refresh()
    texts.add(True)
    texts.add(False)
    now = EVERY_S
    metrics.refresh()
    counters = {each.labels["result"]: each for each in Family.made["wavserve_model_cache_lookups_total"]}
    assert {name: each.values for name, each in counters.items()} == {"hit": [3, 1], "miss": [1]}
    assert counters["hit"].labels == {"model": "video_dit", "cache": "text", "result": "hit"}
