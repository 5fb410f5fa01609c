"""One device and what belongs to it alone: backend, batcher, cost model, admission, planner and perception."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from wavserve.backends.base import Backend
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Clock
from wavserve.planning.forecast import Forecast
from wavserve.planning.model_calls import ModelCalls
from wavserve.planning.perception import Perception
from wavserve.planning.planner import Planner
from wavserve.scheduling.admission import Admission
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.batcher_config import BatcherConfig, OnCall, ignore_call
from wavserve.scheduling.costs import Costs


class Health(Enum):
    """A device's state."""

    UP = "up"
    COLD = "cold"
    """its models answer, and no warm-up plan has been made on them"""
    DOWN = "down"
    """its models are under repair"""
    WRONG_POLICY = "wrong_policy"
    """it serves another policy than this service"""
    WRONG_PLAN = "wrong_plan"
    """its plan for the golden observation is not the golden plan"""


@dataclass(frozen=True, slots=True)
class ModelState:
    """What is known of a device's model, for onlookers."""

    model: str
    up: bool
    pid: int | None = None
    """on the machine of the models"""
    hardware: str = ""
    """`cpu` or `cuda`; empty: not known yet"""
    refusal: str = ""
    """why it is not used although it answers; empty: it is used, or does not answer"""
    memory: Mapping[str, float] = field(default_factory=dict)
    """bytes by the names of `system.memory.MEMORY`, as last reported"""
    arena: tuple[int, int] | None = None
    """slots in use and in all; None: it owns no arena"""


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """How plans share a device."""

    batcher: BatcherConfig
    max_slice: int
    """most video samples in one slice of a plan"""
    slices_in_flight: int
    """slices of one plan that run at once"""
    max_texts: int
    """instructions whose embeddings are cached"""


@dataclass(slots=True, eq=False)
class Device:
    """A device; `plans` counts the plans that run on it.

    `health` is what its supervisor reports, and `generation` changes when one of its models is another process.
    `warmed` is the generation of the last warm-up plan. A device that reports no generations is never cold. `fault`
    says what is wrong with the plans of generation `faulty`; None: nothing is.
    """

    batcher: Batcher
    planner: Planner
    perception: Perception
    name: str = "the device"
    health: Callable[[], Health] = lambda: Health.UP
    generation: Callable[[], object] = lambda: None
    models: Callable[[], tuple[ModelState, ...]] = lambda: ()
    warmed: object = None
    fault: str | None = None
    faulty: object = None
    plans: int = 0

    @classmethod
    def over(
        cls,
        spec: PolicySpec,
        backend: Backend,
        config: DeviceConfig,
        on_call: OnCall = ignore_call,
        clock: Clock = time.monotonic,
    ) -> Device:
        """A device over a backend; its batcher is not started yet."""
        costs = Costs(clock)
        batcher = Batcher(backend, config.batcher, costs, on_call, clock)
        forecast = Forecast(costs, config.batcher.call_s, config.max_slice, config.slices_in_flight)
        admission = Admission(lambda: min(costs.longest_s(), config.batcher.slice_s), clock)
        planner = Planner(ModelCalls(spec, batcher), forecast, admission)
        return cls(batcher, planner, Perception(spec, batcher, config.max_texts))

    @property
    def state(self) -> Health:
        """Whether the device takes plans."""
        if (health := self.health()) is not Health.UP:
            return health
        generation = self.generation()
        if self.fault is not None and generation == self.faulty:
            return Health.WRONG_PLAN
        return Health.UP if generation == self.warmed else Health.COLD

    @property
    def load(self) -> tuple[float, int]:
        """Device seconds that running plans still need, and the number of plans."""
        return self.planner.admission.remaining_s, self.plans
