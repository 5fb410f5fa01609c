"""When something that was asked counts as stuck: after much longer than usual, while this process itself was awake.

The time in which the asked process waited for a processor does not count: on a busy machine it is slow, and does not
stand still. Knows seconds, a clock and processes, and nothing of what was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from wavserve.system.processes import Process, work_of

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


class RunTime:
    """Counts the time in which another process could run: all but what it spent waiting for a processor.

    A process that is stopped, or that sleeps in a driver, wants no processor: all its time counts. One that computes
    counts with the processor time that it gets. `find` returns the process, and None when it is not known; it is called
    once, when the first time is counted.
    """

    def __init__(self, find: Callable[[], Process | None]) -> None:
        self._find = find
        self._process: Process | None = None
        self._used_s: float | None = None
        """processor seconds when a time was last counted; None: before the first time"""

    def of(self, seconds: float) -> float:
        """How much counts of the `seconds` since the last call. All, where nothing is known of the process."""
        before = self._used_s
        if before is None:
            self._process = self._find()
        work = None if self._process is None else work_of(self._process)
        self._used_s = 0.0 if work is None else work.used_s
        if before is None or work is None or not work.wanted:
            return seconds
        return min(seconds, max(0.0, work.used_s - before))


async def answered_within(
    work: asyncio.Future[Any], limit_s: float, counted: Callable[[float], float] = lambda seconds: seconds
) -> bool:
    """Whether `work` ends before this process was awake for `limit_s`. It runs on if not.

    `counted` receives awake seconds and returns how many of them count.
    """
    waited_s, awake = 0.0, AwakeTime(asyncio.get_running_loop().time)
    while not (await asyncio.wait([work], timeout=TICK_S))[0]:
        waited_s += counted(awake.tick())
        if waited_s > limit_s:
            return False
    return True
