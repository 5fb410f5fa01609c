"""A model's memory as Triton's gauges, with a stand-in for Triton's library, which exists in its processes only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from wavserve.app.triton_gauges import EVERY_S, MemoryGauges


@dataclass
class Gauge:
    labels: dict[str, str]
    values: list[float] = field(default_factory=list)

    def set(self, value: float) -> None:
        self.values.append(value)


class Family:
    GAUGE = 1
    made: ClassVar[dict[str, Gauge]] = {}

    def __init__(self, name: str, description: str, kind: int) -> None:
        assert description
        assert kind == self.GAUGE
        self.name = name

    def Metric(self, labels: dict[str, str]) -> Gauge:
        self.made[self.name] = Gauge(labels)
        return self.made[self.name]


def test_gauges_have_the_models_name_and_are_set_once_a_second() -> None:
    now, held = 0.0, iter((10, 20))
    gauges = MemoryGauges("video_dit", {"model_weights_bytes": lambda: next(held)}, Family, lambda: now)
    gauges.refresh()
    gauges.refresh()
    gauge = Family.made["wavserve_model_weights_bytes"]
    assert (gauge.labels, gauge.values) == ({"model": "video_dit"}, [10.0])
    now = EVERY_S
    gauges.refresh()
    assert gauge.values == [10.0, 20.0]
