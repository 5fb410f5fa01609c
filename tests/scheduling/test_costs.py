"""The cost model: it learns what calls take, and is never a trap that nobody gets out of."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.rig import ManualClock
from wavserve.scheduling.costs import HALF_LIFE_S, CallKind, Costs, Meter

KIND = CallKind("imagine")


def taught(clock: ManualClock, seconds_of_rows: dict[int, float], calls: int = 120) -> Costs:
    costs = Costs(clock)
    for rows, seconds in list(seconds_of_rows.items()) * (calls // len(seconds_of_rows)):
        costs.measured(KIND, rows, seconds)
    return costs


def test_nothing_measured_costs_nothing_and_is_tried() -> None:
    costs = Costs(ManualClock())
    assert costs.seconds(KIND, 8) == 0.0
    assert costs.rows_within(KIND, 0.1, most=6) == 6


def test_rows_become_seconds_by_the_line_they_lie_on() -> None:
    costs = taught(ManualClock(), {1: 0.03, 4: 0.06, 8: 0.10})
    for rows, seconds in {1: 0.03, 2: 0.04, 8: 0.10, 16: 0.18}.items():
        assert costs.seconds(KIND, rows) == pytest.approx(seconds, rel=0.02)


def test_with_one_size_measured_others_are_in_proportion() -> None:
    costs = taught(ManualClock(), {8: 0.8})
    assert costs.seconds(KIND, 4) == pytest.approx(0.4, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.0, 10.0)), min_size=1, max_size=60))
def test_more_rows_never_take_less_time(measured: list[tuple[int, float]]) -> None:
    clock = ManualClock()
    costs = Costs(clock)
    for rows, seconds in measured:
        costs.measured(KIND, rows, seconds)
        clock.now += 0.1
    told = [costs.seconds(KIND, rows) for rows in range(1, 65)]
    assert all(0 <= few <= many * (1 + 1e-9) + 1e-12 for few, many in itertools.pairwise(told))


def test_a_noisy_cost_is_promised_with_a_margin() -> None:
    costs = taught(ManualClock(), {4: 0.05})
    steady = costs.seconds(KIND, 4)
    for seconds in (0.04, 0.06) * 30:
        costs.measured(KIND, 4, seconds)
    assert costs.seconds(KIND, 4) > 1.2 * steady


def test_the_first_call_of_its_kind_and_a_hiccup_are_no_trend() -> None:
    clock = ManualClock()
    costs = Costs(clock)
    costs.measured(KIND, 4, 9.0)
    costs.measured(KIND, 4, 0.1)
    assert costs.seconds(KIND, 4) < 0.2
    for _ in range(30):
        costs.measured(KIND, 4, 0.1)
    costs.measured(KIND, 4, 30.0)
    assert costs.seconds(KIND, 4) < 0.2
    for _ in range(60):
        costs.measured(KIND, 4, 1.0)
    assert costs.seconds(KIND, 4) > 0.9


def test_a_slow_moment_passes_though_nobody_dares_to_call() -> None:
    clock = ManualClock()
    costs = taught(clock, {4: 0.1})
    for _ in range(60):
        costs.measured(KIND, 4, 2.0)
    assert costs.seconds(KIND, 4) > 1.8
    clock.now += 8 * HALF_LIFE_S
    assert costs.seconds(KIND, 4) < 0.2


def test_waiting_never_promises_more_than_the_best_there_was() -> None:
    clock = ManualClock()
    costs = taught(clock, {4: 0.1})
    clock.now += 1e6
    assert costs.seconds(KIND, 4) >= 0.1


def test_how_long_calls_last_in_company_is_told_apart_from_what_they_take() -> None:
    clock = ManualClock()
    costs = Costs(clock)
    assert costs.wall_s(KIND) == 0.0
    for _ in range(40):
        costs.measured(KIND, 1, 0.1, wall_s=0.1)
    alone = costs.wall_s(KIND)
    assert alone == pytest.approx(0.1, rel=0.05)
    for _ in range(60):
        costs.measured(KIND, 1, 0.1, wall_s=0.4)
    assert costs.seconds(KIND, 1) == pytest.approx(0.1, rel=0.1)
    assert costs.wall_s(KIND) == pytest.approx(0.4, rel=0.1)
    costs.measured(KIND, 1, 0.1, wall_s=90.0)
    assert costs.wall_s(KIND) < 0.8, "one hiccup is no trend"
    clock.now += 20 * HALF_LIFE_S
    assert costs.wall_s(KIND) == pytest.approx(alone, rel=0.01), "the company is gone"


def test_the_least_a_call_takes_is_the_lowest_estimate_there_ever_was() -> None:
    clock = ManualClock()
    costs = taught(clock, {4: 0.1})
    least = costs.least_seconds(KIND, 4)
    for _ in range(40):
        costs.measured(KIND, 4, 0.3)
    assert costs.seconds(KIND, 4) > 0.29
    assert 0.1 <= costs.least_seconds(KIND, 4) == least
    assert costs.least_seconds(CallKind("decode"), 1) == 0.0


def test_a_kind_never_measured_is_guessed_from_the_closest_in_work() -> None:
    costs = Costs(ManualClock())
    for _ in range(40):
        costs.measured(CallKind("score", 10, 5), 4, 0.1)
        costs.measured(CallKind("score", 50, 16), 4, 2.0)
        costs.measured(KIND, 4, 7.0)
    assert costs.seconds(CallKind("score", 9, 5), 4) == pytest.approx(0.09, rel=0.05)
    assert costs.seconds(CallKind("score", 40, 16), 4) == pytest.approx(1.6, rel=0.05)


def test_slices_are_powers_of_two_that_stay_short() -> None:
    costs = taught(ManualClock(), {1: 0.02, 2: 0.03, 4: 0.05})  # 10 ms and 10 ms a row
    assert [costs.rows_within(KIND, seconds, most=6) for seconds in (0.01, 0.035, 0.055, 1.0)] == [1, 2, 4, 6]


def test_calls_are_not_cut_where_that_saves_nobody_time() -> None:
    """80 ms for no row and 10 ms a row: eight rows in one call take 160 ms, in eight calls 720 ms."""
    costs = taught(ManualClock(), {1: 0.09, 4: 0.12, 8: 0.16})
    assert costs.rows_within(KIND, 0.05, most=8) == 8
    assert costs.rows_within(KIND, 0.05, most=16) == 8


def test_sizes_never_tried_are_tried() -> None:
    """Else a device whose calls cost the same at any size would be fed single rows for ever."""
    costs = taught(ManualClock(), {1: 0.09})
    assert costs.rows_within(KIND, 0.1, most=8) == 8
    for _ in range(20):
        costs.measured(KIND, 8, 0.09)
        costs.measured(KIND, 1, 0.09)
    assert costs.rows_within(KIND, 0.1, most=8) == 8
    for _ in range(200):
        costs.measured(KIND, 1, 0.09)
    assert costs.seconds(KIND, 8) == pytest.approx(0.09, rel=0.05)


def test_calls_that_run_at_once_share_the_device_s_time() -> None:
    clock = ManualClock()
    meter = Meter(clock)
    first = meter.start()
    clock.now += 1.0
    second = meter.start()
    clock.now += 1.0
    assert meter.stop(first) == 1.5
    clock.now += 1.0
    assert meter.stop(second) == 1.5
    clock.now += 5.0  # idle
    third = meter.start()
    clock.now += 1.0
    assert meter.stop(third) == 1.0


def test_the_longest_call_of_late_is_forgotten_within_seconds() -> None:
    clock = ManualClock()
    costs = Costs(clock)
    assert costs.longest_s() == 0.0
    costs.measured(KIND, 8, 0.1, wall_s=0.4)
    costs.measured(CallKind("score"), 8, 0.1)
    assert costs.longest_s() == 0.4
    clock.now += 2 * HALF_LIFE_S
    assert costs.longest_s() == pytest.approx(0.1)
    costs.measured(KIND, 1, 0.2)
    assert costs.longest_s() == 0.2
