"""How much later plans end than predicted. Every promise has this much time on top.

Knows a clock and seconds, and nothing of plans.
"""

from __future__ import annotations

import math

from wavserve.core.types import Clock

GAIN = 0.1
"""Weight of the newest value in a running mean."""
HALF_LIFE_S = 2.0
MIN_MARGIN_S = 0.005
"""Time to send an answer."""


class Lateness:
    """The recent lateness of plans: a running mean and two mean deviations.

    It fades while no plan ends. A margin that refuses every plan could otherwise never be corrected.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mean = self._deviation = 0.0
        self._learnt_at = clock()

    @property
    def margin_s(self) -> float:
        """Seconds to add to a predicted end."""
        faded = math.exp2((self._learnt_at - self._clock()) / HALF_LIFE_S)
        return max(MIN_MARGIN_S, (self._mean + 2 * self._deviation) * faded)

    def learn(self, late_s: float) -> None:
        """A plan ended `late_s` after its predicted end; an early end counts as 0."""
        late_s, self._learnt_at = max(0.0, late_s), self._clock()
        self._deviation += GAIN * (abs(late_s - self._mean) - self._deviation)
        self._mean += GAIN * (late_s - self._mean)
