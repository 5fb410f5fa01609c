"""Calls something at a fixed rate on a thread: absolute deadlines `t0 + k dt`, late ticks dropped, never a burst.

Knows nothing of what it calls.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable

from wavserve.core.types import Clock


class RateLoop:
    """`tick(late_s)` until it returns True. An exception ends the loop, and stands in `failure`."""

    def __init__(
        self, tick: Callable[[float], bool], dt_s: float, clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._tick, self._dt_s, self._clock, self._sleep = tick, dt_s, clock, sleep
        self.num_dropped = 0
        """deadlines that passed while a tick ran"""
        self.failure = ""
        self._thread = threading.Thread(target=self.run, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Whether it has ended within the time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def run(self) -> None:
        """On the caller's thread."""
        start, k = self._clock(), 0
        try:
            while True:
                deadline = start + k * self._dt_s
                wait_s = deadline - self._clock()
                if wait_s > 0:
                    self._sleep(wait_s)
                if self._tick(max(0.0, self._clock() - deadline)):
                    return
                # A tick that would be more than half a period late is dropped, so two are never close together.
                following = max(k + 1, math.ceil((self._clock() - start) / self._dt_s - 0.5))
                self.num_dropped += following - k - 1
                k = following
        except Exception:  # noqa: BLE001  the arms keep their last target, and the operator is told
            self.failure = traceback.format_exc()
