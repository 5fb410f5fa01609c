"""How a robot stops and how it approaches a pose, step by step. Pure numpy: no clock, no bus.

`A` are the axes; every step is the change of a command from one control step to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Axes = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the client lets through, whatever asks. All `[A]`."""

    low: Axes
    high: Axes
    max_step: Axes
    braking: Axes
    """the most by which a step may shrink from one step to the next while the robot stops"""

    def apply(self, wanted: Axes, last: Axes) -> tuple[Axes, tuple[int, ...]]:
        """The nearest command that is in range and within `max_step` of the last one, and the axes it changed."""
        within = np.clip(np.clip(wanted, self.low, self.high), last - self.max_step, last + self.max_step)
        changed = np.flatnonzero(np.abs(within - wanted) > 1e-9)
        return within, tuple(int(axis) for axis in changed)


class Braking:
    """Brings a motion to rest: each step is smaller than the one before, by at most `limits.braking`."""

    def __init__(self, last: Axes, step: Axes, limits: Limits) -> None:
        self._position = last
        self._step = np.clip(step, -limits.max_step, limits.max_step)
        self._limits = limits

    @property
    def is_at_rest(self) -> bool:
        return not self._step.any()

    def next(self) -> Axes:
        """The next command; at rest, the last one again."""
        shrunk = np.maximum(np.abs(self._step) - self._limits.braking, 0.0)
        self._step = np.copysign(shrunk, self._step) * (shrunk > 0)
        if self._step.any():
            # A start outside the range stays where it is: the range never pulls while the robot stops.
            low, high = np.minimum(self._limits.low, self._position), np.maximum(self._limits.high, self._position)
            self._position = np.clip(self._position + self._step, low, high)
        return self._position


def approach(last: Axes, target: Axes, max_step: Axes) -> Axes:
    """One step on the straight line to the target; no axis moves more than its `max_step`, and all arrive together."""
    distance = target - last
    ratio = float(np.max(np.abs(distance) / max_step))
    return target.copy() if ratio <= 1.0 else last + distance / ratio
