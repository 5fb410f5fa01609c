"""When something that was asked counts as stuck: after much longer than usual, while this process itself was awake.

Knows seconds and a clock, and nothing of what was asked.
"""

from __future__ import annotations

from collections.abc import Callable

MIN_LIMIT_S = 2.0
"""Nothing counts as stuck sooner: a busy machine may hold up anything for a moment."""
TIMES_PREDICTED = 5.0
TICK_S = 0.25
"""How often something that runs should be looked at."""


def limit_s(predicted_s: float, ceiling_s: float) -> float:
    """Seconds after which something that should take `predicted_s` is stuck."""
    return min(ceiling_s, max(MIN_LIMIT_S, TIMES_PREDICTED * predicted_s))


class AwakeTime:
    """Counts the time in which this process was awake, in ticks of TICK_S.

    A tick counts at most twice its length. When the whole process stood still (a debugger, a suspended machine), the
    answers that came meanwhile are read before anything is judged.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()

    def tick(self) -> float:
        """The awake seconds since the last tick."""
        before, self._at = self._at, self._clock()
        return min(self._at - before, 2 * TICK_S)
