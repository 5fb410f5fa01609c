"""The random numbers of an episode. Each depends on its seed, its start and its control step alone.

So a number does not change with what came before it, with the machine's speed or with the order of the episodes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from wavserve.core.simulation import Start

_PLAN, _LATENCY = 0, 1


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to a plan on its way."""

    latency_ms: float
    """from the observation to the answer"""
    lost: bool
    """whether the answer never arrives"""


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws for one episode. `seed`: at least 0."""

    seed: int
    start: Start

    def plan_seed(self, step: int) -> int:
        """The seed of the plan that is asked for at a control step."""
        return int(self._sequence(step, _PLAN).generate_state(1)[0])

    def fate(self, step: int, latency_ms: float, jitter_ms: float, loss: float) -> Fate:
        """Of the plan that is asked for at a control step.

        The latency is normal, and at least 0. `jitter_ms`: its standard deviation. `loss`: the share of lost plans.
        """
        generator = np.random.default_rng(self._sequence(step, _LATENCY))
        deviations, chance = generator.standard_normal(), generator.random()
        return Fate(max(0.0, latency_ms + jitter_ms * float(deviations)), bool(chance < loss))

    def _sequence(self, step: int, stream: int) -> np.random.SeedSequence:
        suite = zlib.crc32(self.start.suite.encode())
        return np.random.SeedSequence([self.seed, suite, self.start.task, self.start.state_index, step, stream])
