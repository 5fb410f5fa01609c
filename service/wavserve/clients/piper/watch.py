"""The faults of an arm, as texts: old feedback, its status, its drivers, frames that could not be sent.

Pure: it judges what it is given. Knows neither the SDK nor the control thread.
"""

from __future__ import annotations

import math

from wavserve.clients.piper.feedback import Feedback
from wavserve.clients.piper.limits import STATUS_OK, STATUS_TEXTS, driver_faults

MAX_DRIVERS_AGE_S = 0.5
"""The drivers report 40 times a second."""


class Standstill:
    """Notices that the whole process stood still: what it knows of the arms is then old by its own fault.

    Between two ticks lie at most the age that feedback may have, at slow control rates one and a half control steps.
    """

    def __init__(self, max_age_s: float, dt_s: float) -> None:
        self._max_gap_s = max(max_age_s, 1.5 * dt_s)
        self._last_s = math.inf
        self._awake_since = -math.inf
        self._excused_until = -math.inf

    def passed(self, now: float) -> float:
        """Call it at each tick. The seconds of a standstill that has just ended; 0: there was none."""
        gap_s, self._last_s = now - self._last_s, now
        if gap_s <= self._max_gap_s:
            return 0.0
        if now - gap_s - self._awake_since >= 2 * self._max_gap_s:  # the arms were judged in between
            self._excused_until = now + self._max_gap_s
        self._awake_since = now
        return gap_s

    def excuses(self, now: float) -> bool:
        """Whether old feedback is no fault of an arm yet: the threads that read have just begun to catch up."""
        return now < self._excused_until


def faults(feedback: Feedback, num_failed_sends: int, now: float, max_age_s: float) -> list[str]:
    """The faults of an arm that may move. `num_failed_sends`: since the last look."""
    found = []
    age_s = feedback.age_s(now)
    if age_s > max_age_s:
        found.append(f"no feedback for {age_s * 1e3:.0f} ms")
    if feedback.drivers_age_s(now) > MAX_DRIVERS_AGE_S:
        found.append(f"no feedback of the drivers for {feedback.drivers_age_s(now):.1f} s")
    status = feedback.status
    if status is not None and status.arm_status != STATUS_OK:
        found.append(f"arm status {status.arm_status}: {STATUS_TEXTS.get(status.arm_status, 'unknown')}")
    if status is not None and status.error_code:
        found.append(f"error code {status.error_code:#06x}")
    for motor, flags in enumerate(feedback.drivers, 1):
        found += [f"motor {motor}: {text}" for text in driver_faults(flags)]
    if num_failed_sends:
        found.append(f"{num_failed_sends} frames could not be sent")
    return found


def lost_control(feedback: Feedback) -> list[str]:
    """The faults of an arm that was enabled and obeyed."""
    found = [] if feedback.is_enabled else ["a driver is disabled"]
    if not feedback.takes_commands:
        mode = None if feedback.status is None else feedback.status.control_mode
        found.append(f"another controller has the arm: control mode {mode}")
    return found
