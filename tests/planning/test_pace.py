"""How long plans take lately: learnt from what was measured, and never a trap that nobody gets out of."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from rig import ManualClock

from wavserve.pace import HALF_LIFE_S, Pace
from wavserve.spec import PlannerConfig

CONFIG = PlannerConfig(num_video_samples=10, num_iterations=5)


def run(pace: Pace, clock: ManualClock, config: PlannerConfig, seconds: float) -> None:
    """One iteration and one final decode that take so long each."""
    with pace.iteration(config):
        clock.now += seconds
    with pace.final(config):
        clock.now += seconds


def test_nothing_measured_means_go_ahead() -> None:
    assert Pace(ManualClock()).another_fits(CONFIG, 0.0)


def test_what_was_measured_is_expected_again() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    for _ in range(20):
        run(pace, clock, CONFIG, 1.0)
    assert pace.iteration_s(CONFIG) == pytest.approx(1.0, rel=0.02)
    assert pace.iteration_s(replace(CONFIG, num_video_samples=20)) == pytest.approx(2.0, rel=0.02)
    assert pace.plan_s(CONFIG) == pytest.approx(6.0, rel=0.02)
    assert not pace.another_fits(CONFIG, 1.9)
    assert pace.another_fits(CONFIG, 2.1)


def test_a_busy_moment_passes_though_no_plan_dares_to_iterate() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    for seconds in (0.5, 0.5, 0.5, 8.0, 8.0, 8.0):
        run(pace, clock, CONFIG, seconds)
    assert not pace.another_fits(CONFIG, 2.0)
    clock.now += 8 * HALF_LIFE_S
    assert pace.another_fits(CONFIG, 2.0)


def test_waiting_never_promises_more_than_the_best_ever_seen() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    for _ in range(10):
        run(pace, clock, CONFIG, 1.0)
    clock.now += 1e6
    assert pace.iteration_s(CONFIG) >= 1.0


def test_an_iteration_that_ran_out_of_time_counts() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    run(pace, clock, CONFIG, 1.0)
    before = pace.iteration_s(CONFIG)
    for seconds in (0.1, 5.0):
        with suppress(TimeoutError), pace.iteration(CONFIG):
            clock.now += seconds
            raise TimeoutError
        assert (pace.iteration_s(CONFIG) > before) == (seconds == 5.0)


def test_a_kind_never_measured_is_guessed_from_the_closest_in_work() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    run(pace, clock, CONFIG, 1.0)
    heavy = replace(CONFIG, num_video_steps=10, num_flow_steps=50, num_value_samples=16)
    run(pace, clock, heavy, 30.0)
    assert pace.iteration_s(replace(CONFIG, num_flow_steps=9)) < 2 * pace.iteration_s(CONFIG)
    assert pace.iteration_s(replace(heavy, num_flow_steps=40)) > 10 * pace.iteration_s(CONFIG)
