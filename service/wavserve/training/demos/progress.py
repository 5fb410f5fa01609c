"""What a user reads while demonstrations are generated: how many, how many succeed, the time left.

Knows no terminal.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

from wavserve.training.episode import Episode

_WINDOW = 50
"""recent episodes that the time left is told by"""


class Progress:
    """`log` gets a line of each episode. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float], log: Callable[[str], None]) -> None:
        self._clock, self._log = clock, log
        self._last = clock()
        self._durations: deque[float] = deque(maxlen=_WINDOW)
        self._num_successes = 0
        self._num_new = 0

    def __call__(self, episode: Episode | None, num_done: int, total: int) -> None:
        if episode is None:
            self._log(f"{num_done}/{total} episodes are on disk")
            self._last = self._clock()
            return
        now = self._clock()
        self._durations.append(now - self._last)
        self._last = now
        self._num_new += 1
        self._num_successes += episode.info.success
        info = episode.info
        self._log(
            f"{num_done}/{total} episodes, success {self._num_successes / self._num_new:.1%}, "
            f"{_shown(statistics.fmean(self._durations) * (total - num_done))} left: "
            f"task {info.task} number {info.number}: {info.kind}, {info.num_steps} steps, {self._durations[-1]:.1f} s"
        )


def _shown(seconds: float) -> str:
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {round(seconds) % 60} s"
