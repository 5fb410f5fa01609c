"""When something that was asked counts as stuck: after much longer than usual, while this process itself was awake.

Knows seconds and a clock, and nothing of what was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

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


async def answered_within(work: asyncio.Future[Any], limit_s: float, counts: Callable[[], bool] = lambda: True) -> bool:
    """Whether `work` ends before this process was awake for `limit_s`. It runs on if not.

    Only the time in which `counts` is true is counted.
    """
    waited_s, awake = 0.0, AwakeTime(asyncio.get_running_loop().time)
    while not (await asyncio.wait([work], timeout=TICK_S))[0]:
        seconds = awake.tick()
        waited_s += seconds if counts() else 0.0
        if waited_s > limit_s:
            return False
    return True
