"""A model's memory and caches as metrics of its Triton server, beside Triton's own.

Part of a model's process. It knows Triton's custom metrics only by the class of metric families that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wavserve.system.lookups import MEANING, NAME, Lookups, NewLookups
from wavserve.system.memory import MEMORY

EVERY_S = 1.0
"""A metric costs a message to the server, so it is set once a second at most. The gateway's test calls are as frequent,
so it is never much older."""


class ModelMetrics:
    """The metrics of one model. `families` is Triton's `MetricFamily`, and `clock` tells seconds."""

    def __init__(
        self,
        model: str,
        readings: Mapping[str, Callable[[], float]],
        caches: Mapping[str, Lookups],
        families: Any,
        clock: Callable[[], float],
    ) -> None:
        self._readings, self._clock = readings, clock
        # the families must live as long as their metrics
        self._families = {
            name: families(name=f"wavserve_{name}", description=MEMORY[name], kind=families.GAUGE) for name in readings
        }
        self._gauges = {name: each.Metric(labels={"model": model}) for name, each in self._families.items()}
        self._looked_up = NewLookups(caches)
        self._lookups = families(name=f"wavserve_{NAME}_total", description=MEANING, kind=families.COUNTER)
        self._counters = {
            (cache, result): self._lookups.Metric(labels={"model": model, "cache": cache, "result": result})
            for cache, result in self._looked_up.series()
        }
        self._next = clock()

    def refresh(self) -> None:
        """Brings the metrics up to date, unless that was done just now."""
        if self._clock() < self._next:
            return
        for name, reading in self._readings.items():
            self._gauges[name].set(float(reading()))
        for cache, result, more in self._looked_up.take():
            if more:
                self._counters[cache, result].increment(more)
        self._next = self._clock() + EVERY_S
