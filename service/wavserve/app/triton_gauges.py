"""A model's memory as gauges of its Triton server, beside Triton's own metrics.

Part of a model's process. It knows Triton's custom metrics only by the class of metric families that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wavserve.system.memory import MEMORY

EVERY_S = 1.0
"""A gauge costs a message to the server, so it is set once a second at most. The gateway's test calls are as frequent,
so it is never much older."""


class MemoryGauges:
    """The gauges of one model. `families` is Triton's `MetricFamily`, and `clock` tells seconds."""

    def __init__(
        self,
        model: str,
        readings: Mapping[str, Callable[[], float]],
        families: Any,
        clock: Callable[[], float],
    ) -> None:
        self._readings, self._clock = readings, clock
        # the families must live as long as their gauges
        self._families = {
            name: families(name=f"wavserve_{name}", description=MEMORY[name], kind=families.GAUGE) for name in readings
        }
        self._gauges = {name: each.Metric(labels={"model": model}) for name, each in self._families.items()}
        self._next = clock()

    def refresh(self) -> None:
        """Sets the gauges, unless that was done just now."""
        if self._clock() < self._next:
            return
        for name, reading in self._readings.items():
            self._gauges[name].set(float(reading()))
        self._next = self._clock() + EVERY_S
