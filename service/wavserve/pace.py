"""Measured times: the stage times of one plan, and how long planning takes lately.

Used by the planner (to stop in time) and the policy (to report). Knows clocks and planner settings, nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wavserve.spec import PlannerConfig

Clock = Callable[[], float]

GAIN = 0.25
DEVIATIONS = 2.0
"""An estimate is the running mean plus this many mean deviations, so that a plan rarely outruns it."""


@dataclass(slots=True)
class StageTimes:
    """Seconds of one plan by stage; stages of concurrent slices add up, so a stage may exceed the plan's wall time."""

    clock: Clock = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = self.clock()
        try:
            yield
        finally:
            self.add(stage, self.clock() - started)


@dataclass(slots=True)
class Estimate:
    """Running mean and mean deviation of a duration, in seconds."""

    mean: float | None = None
    deviation: float = 0.0

    def update(self, seconds: float) -> None:
        if self.mean is None:
            self.mean, self.deviation = seconds, seconds / 4
            return
        self.deviation += GAIN * (abs(seconds - self.mean) - self.deviation)
        self.mean += GAIN * (seconds - self.mean)

    @property
    def upper(self) -> float:
        """A duration that most of the next ones stay under; 0 while nothing was measured."""
        return 0.0 if self.mean is None else self.mean + DEVIATIONS * self.deviation


class Pace:
    """How long an iteration (per video sample) and the final decode take lately, for each kind of plan.

    A kind never measured borrows the slowest estimate known; with none at all the plan goes ahead and finds out.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._per_sample: dict[tuple[int, ...], Estimate] = {}
        self._final: dict[tuple[int, ...], Estimate] = {}

    def another_fits(self, config: PlannerConfig, remaining_s: float) -> bool:
        """Whether one more iteration and the final decode fit into the time left."""
        return self.iteration_s(config) + self.final_s(config) <= remaining_s

    def iteration_s(self, config: PlannerConfig) -> float:
        return config.num_video_samples * _upper(self._per_sample, _iteration_kind(config))

    def final_s(self, config: PlannerConfig) -> float:
        return _upper(self._final, _final_kind(config))

    @contextmanager
    def iteration(self, config: PlannerConfig) -> Iterator[None]:
        started = self._clock()
        yield
        seconds = (self._clock() - started) / config.num_video_samples
        self._per_sample.setdefault(_iteration_kind(config), Estimate()).update(seconds)

    @contextmanager
    def final(self, config: PlannerConfig) -> Iterator[None]:
        started = self._clock()
        yield
        self._final.setdefault(_final_kind(config), Estimate()).update(self._clock() - started)


def _upper(table: dict[tuple[int, ...], Estimate], kind: tuple[int, ...]) -> float:
    known = table.get(kind)
    return known.upper if known else max((estimate.upper for estimate in table.values()), default=0.0)


def _iteration_kind(config: PlannerConfig) -> tuple[int, ...]:
    return config.num_value_samples, config.num_flow_steps, config.num_video_steps


def _final_kind(config: PlannerConfig) -> tuple[int, ...]:
    return config.num_flow_steps, config.num_video_steps, config.estimate_value
