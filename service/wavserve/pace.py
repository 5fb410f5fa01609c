"""Measured times: the stage times of one plan, and how long planning takes lately.

Used by the planner (to stop in time) and the policy (to report). Knows clocks and planner settings, nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from wavserve.spec import PlannerConfig

Clock = Callable[[], float]

GAIN = 0.25
DEVIATIONS = 2.0
"""An estimate is the running mean plus this many mean deviations, so that a plan rarely outruns it."""
HALF_LIFE_S = 2.0
"""How fast an estimate that is not measured again falls back to the best ever seen: load passes, and nobody would find
out if a slow moment stopped every plan from trying."""
VALUE_WORK = 0.02
"""Rough work of one value sample's flow step, in video forwards; only guesses about kinds never measured use it."""


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

    mean: float
    deviation: float
    measured_at: float
    best: float
    """lowest upper bound there ever was: what an idle machine needs"""

    @staticmethod
    def first(seconds: float, now: float) -> Estimate:
        return Estimate(seconds, seconds / 4, now, best=seconds + DEVIATIONS * seconds / 4)

    def update(self, seconds: float, now: float) -> None:
        self.deviation += GAIN * (abs(seconds - self.mean) - self.deviation)
        self.mean += GAIN * (seconds - self.mean)
        self.measured_at = now
        self.best = min(self.best, self.mean + DEVIATIONS * self.deviation)

    def upper(self, now: float) -> float:
        """A duration that most of the next ones stay under."""
        measured = self.mean + DEVIATIONS * self.deviation
        return self.best + (measured - self.best) * math.exp2((self.measured_at - now) / HALF_LIFE_S)


@dataclass(frozen=True, slots=True)
class Kind:
    """Durations that are comparable: the same flow steps `F`, video steps and value samples `M` of a sample."""

    flow_steps: int
    video_steps: int
    value_samples: int

    @property
    def work(self) -> float:
        return self.video_steps + VALUE_WORK * self.flow_steps * (1 + self.value_samples)


class Pace:
    """How long an iteration (per video sample), the final decode and a picture take lately, for each kind of plan.

    A kind never measured is guessed from the measured one closest in work; with none at all a plan goes ahead and finds
    out.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._per_sample: dict[Kind, Estimate] = {}
        self._final: dict[Kind, Estimate] = {}
        self._picture: dict[Kind, Estimate] = {}

    def another_fits(self, config: PlannerConfig, remaining_s: float) -> bool:
        """Whether one more iteration and the final decode fit into the time left."""
        return self.iteration_s(config) + self.final_s(config) <= remaining_s

    def iteration_s(self, config: PlannerConfig) -> float:
        return config.num_video_samples * self._upper(self._per_sample, _iteration_kind(config))

    def final_s(self, config: PlannerConfig) -> float:
        return self._upper(self._final, _final_kind(config))

    def picture_s(self, config: PlannerConfig) -> float:
        """One chunk of imagined frames."""
        return self._upper(self._picture, _picture_kind(config))

    def plan_s(self, config: PlannerConfig) -> float:
        """A whole plan."""
        return config.num_iterations * self.iteration_s(config) + self.final_s(config)

    def iteration(self, config: PlannerConfig) -> AbstractContextManager[None]:
        return self._measured(self._per_sample, _iteration_kind(config), 1 / config.num_video_samples)

    def final(self, config: PlannerConfig) -> AbstractContextManager[None]:
        return self._measured(self._final, _final_kind(config))

    def picture(self, config: PlannerConfig) -> AbstractContextManager[None]:
        return self._measured(self._picture, _picture_kind(config))

    @contextmanager
    def _measured(self, table: dict[Kind, Estimate], kind: Kind, share: float = 1.0) -> Iterator[None]:
        """Times a block; one that did not end counts too if it was slower than usual already: it ran out of time."""
        started, ended = self._clock(), False
        try:
            yield
            ended = True
        finally:
            now = self._clock()
            seconds, known = (now - started) * share, table.get(kind)
            if known is None:
                if ended:
                    table[kind] = Estimate.first(seconds, now)
            elif ended or seconds > known.mean:
                known.update(seconds, now)

    def _upper(self, table: dict[Kind, Estimate], kind: Kind) -> float:
        if not table:
            return 0.0
        nearest = kind if kind in table else min(table, key=lambda known: abs(math.log(known.work / kind.work)))
        return table[nearest].upper(self._clock()) * kind.work / nearest.work


def _iteration_kind(config: PlannerConfig) -> Kind:
    return Kind(config.num_flow_steps, config.num_video_steps, config.num_value_samples)


def _final_kind(config: PlannerConfig) -> Kind:
    return Kind(config.num_flow_steps, config.num_video_steps, config.num_value_samples if config.estimate_value else 0)


def _picture_kind(config: PlannerConfig) -> Kind:
    return Kind(config.num_flow_steps, config.num_flow_steps, 0)
