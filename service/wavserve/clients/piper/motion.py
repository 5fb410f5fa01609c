"""The approach to a first command: a straight line, with a speed that rises and falls evenly. Pure numpy.

`[A]` are axes in any unit. It knows no clock: it counts control steps.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Axes = NDArray[np.float64]


class Approach:
    """Goes from one pose to another. All axes arrive together; the slowest one sets the pace.

    `max_step [A]`: the largest change in one step, reached after `ramp_steps`.
    """

    def __init__(self, start: Axes, target: Axes, max_step: Axes, ramp_steps: int) -> None:
        self._start, self._way = start, target - start
        self._length = float(np.max(np.abs(self._way) / max_step))
        """in steps at full speed"""
        self._acceleration = 1.0 / ramp_steps
        self._done = 0.0
        self._speed = 0.0
        self._is_stopping = False
        self.position = start
        """`[A]`: the latest command"""

    @property
    def is_over(self) -> bool:
        """At the target, or at rest after `stop`."""
        return self._done >= self._length or (self._is_stopping and self._speed <= 0.0)

    def stop(self) -> None:
        """Comes to rest on the line."""
        self._is_stopping = True

    def next(self) -> Axes:
        """The next command `[A]`; once it is over, the same again."""
        rest = self._length - self._done
        # The fastest speed from which even braking ends at the target, with the step that is taken now.
        braking = self._acceleration * (math.sqrt(0.25 + 2.0 * rest / self._acceleration) - 0.5)
        wanted = 0.0 if self._is_stopping else min(1.0, max(braking, self._acceleration * 0.1))
        change = min(max(wanted - self._speed, -self._acceleration), self._acceleration)
        self._speed = max(0.0, self._speed + change)
        self._done = min(self._length, self._done + self._speed)
        share = self._done / self._length if self._length > 0 else 1.0
        self.position = self._start + share * self._way
        return self.position
