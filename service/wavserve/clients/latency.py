"""The latency of chunks, which says how early a robot asks for the next one. Knows no clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from wavserve.core.errors import InvalidRequest


def p95(latencies: Iterable[float]) -> float:
    """The shortest of the latencies, at least one, within which 95 % of them lie."""
    ranked = sorted(latencies)
    return ranked[math.ceil(0.95 * len(ranked)) - 1]


class LatencyWindow:
    """How long a chunk takes: the 95th percentile of the latest ones. The first is cold and does not count."""

    def __init__(self, max_samples: int = 64) -> None:
        self._samples: deque[float] = deque(maxlen=max_samples)
        self._is_cold = True
        self.p95_s: float | None = None  # None: not known yet; another thread may read it

    def add(self, seconds: float) -> None:
        """Adds the time from an observation to its chunk. Raises InvalidRequest for a time that is none."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise InvalidRequest("seconds", "a duration", seconds)
        if self._is_cold:
            self._is_cold = False
            return
        self._samples.append(seconds)
        self.p95_s = p95(self._samples)

    def steps(self, dt_s: float) -> int | None:
        """The percentile in control steps, rounded up; None: not known yet."""
        p95_s = self.p95_s
        return None if p95_s is None else math.ceil(p95_s / dt_s)
