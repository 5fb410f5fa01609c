"""One device with everything that is its own: backend, batcher, cost model, admission, and the planner over them.

Assembled by `fleet` (and by tests and benchmarks); plans are placed on it by `placement`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from wavserve.backends.base import Backend
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Clock
from wavserve.planning.forecast import Forecast
from wavserve.planning.model_calls import ModelCalls
from wavserve.planning.perception import Perception
from wavserve.planning.planner import Planner
from wavserve.scheduling.admission import Admission
from wavserve.scheduling.batcher import Batcher, BatcherConfig, OnBatch, ignore
from wavserve.scheduling.costs import Costs


class Health(Enum):
    """What a device's supervisor says of it."""

    UP = "up"
    DOWN = "down"
    """being repaired"""
    WRONG_POLICY = "wrong_policy"
    """it serves another policy than this service"""


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """How plans share a device."""

    batcher: BatcherConfig
    max_slice: int
    """video samples of one plan that travel together at most"""
    slices_in_flight: int
    """slices of one plan under way at once"""
    max_texts: int
    """instructions whose embeddings are kept"""


@dataclass(slots=True, eq=False)
class Device:
    """A device; `plans` are under way on it."""

    batcher: Batcher
    planner: Planner
    perception: Perception
    health: Callable[[], Health] = lambda: Health.UP
    plans: int = 0

    @classmethod
    def over(
        cls,
        spec: PolicySpec,
        backend: Backend,
        config: DeviceConfig,
        on_batch: OnBatch = ignore,
        clock: Clock = time.monotonic,
    ) -> Device:
        """A device around a backend; its batcher is not started."""
        costs = Costs(clock)
        batcher = Batcher(backend, config.batcher, costs, on_batch, clock)
        forecast = Forecast(costs, config.batcher.call_s, config.max_slice, config.slices_in_flight)
        admission = Admission(lambda: min(costs.longest_s(), config.batcher.slice_s), clock)
        planner = Planner(ModelCalls(spec, batcher), forecast, admission)
        return cls(batcher, planner, Perception(spec, batcher, config.max_texts))

    @property
    def load(self) -> tuple[float, int]:
        """Device seconds owed to plans under way, and their number."""
        return self.planner.admission.remaining_s, self.plans
