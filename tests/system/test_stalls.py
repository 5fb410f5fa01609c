"""What counts as stuck."""

from __future__ import annotations

import pytest

from tests.clock import ManualClock
from wavserve.system.stalls import TICK_S, AwakeTime, limit_s


@pytest.mark.parametrize(
    ("predicted_s", "ceiling_s", "limit"), [(0.01, 60.0, 2.0), (1.0, 60.0, 5.0), (30.0, 60.0, 60.0), (0.01, 1.0, 1.0)]
)
def test_the_limit_is_five_times_the_prediction_at_least_two_seconds_and_at_most_the_ceiling(
    predicted_s: float, ceiling_s: float, limit: float
) -> None:
    assert limit_s(predicted_s, ceiling_s) == limit


def test_time_in_which_the_process_itself_stood_still_does_not_count() -> None:
    clock = ManualClock()
    awake = AwakeTime(clock)
    clock.now += TICK_S
    assert awake.tick() == TICK_S
    clock.now += 100.0
    assert awake.tick() == 2 * TICK_S
