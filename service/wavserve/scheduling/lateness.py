"""By how much plans end later than was foretold, lately: what every promise has on top.

Kept by the schedule. Knows a clock and seconds, and nothing of plans.
"""

from __future__ import annotations

import math

from wavserve.core.types import Clock

MARGIN_GAIN = 0.1
MARGIN_HALF_LIFE_S = 2.0
MIN_MARGIN_S = 0.005
"""An answer's way out."""


class Margin:
    """By how much plans end later than was foretold: a running mean and two mean deviations.

    It fades while no plan ends: one that had every plan refused would never be found wrong.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mean = self._deviation = 0.0
        self._learnt_at = clock()

    @property
    def seconds(self) -> float:
        faded = math.exp2((self._learnt_at - self._clock()) / MARGIN_HALF_LIFE_S)
        return max(MIN_MARGIN_S, (self._mean + 2 * self._deviation) * faded)

    def learn(self, late_s: float) -> None:
        late_s, self._learnt_at = max(0.0, late_s), self._clock()
        self._deviation += MARGIN_GAIN * (abs(late_s - self._mean) - self._deviation)
        self._mean += MARGIN_GAIN * (late_s - self._mean)
