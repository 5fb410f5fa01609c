"""The cost model: it learns how long calls take, and a slow moment does not stay in it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import ManualClock
from wavserve.scheduling.costs import HALF_LIFE_S, CallKind, Costs

KIND = CallKind("imagine")


def costs_after(clock: ManualClock, seconds_of_rows: dict[int, float], calls: int = 120) -> Costs:
    """A cost model that measured `calls` calls, of each number of rows in turn."""
    costs = Costs(clock)
    for rows, seconds in list(seconds_of_rows.items()) * (calls // len(seconds_of_rows)):
        costs.measured(KIND, rows, seconds)
    return costs


def test_a_kind_never_measured_costs_nothing_and_is_tried_whole(clock: ManualClock) -> None:
    costs = Costs(clock)
    assert costs.seconds(KIND, 8) == 0.0
    assert costs.rows_within(KIND, 0.1, most=6) == 6


def test_seconds_are_linear_in_rows(clock: ManualClock) -> None:
    costs = costs_after(clock, {1: 0.03, 4: 0.06, 8: 0.10})
    for rows, seconds in {1: 0.03, 2: 0.04, 8: 0.10, 16: 0.18}.items():
        assert costs.seconds(KIND, rows) == pytest.approx(seconds, rel=0.02)


def test_with_one_size_measured_seconds_are_proportional_to_rows(clock: ManualClock) -> None:
    costs = costs_after(clock, {8: 0.8})
    assert costs.seconds(KIND, 4) == pytest.approx(0.4, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.0, 10.0)), min_size=1, max_size=60))
def test_more_rows_never_take_less_time(measured: list[tuple[int, float]]) -> None:
    clock = ManualClock()
    costs = Costs(clock)
    for rows, seconds in measured:
        costs.measured(KIND, rows, seconds)
        clock.now += 0.1
    predicted = [costs.seconds(KIND, rows) for rows in range(1, 65)]
    assert all(0 <= few <= many * (1 + 1e-9) + 1e-12 for few, many in itertools.pairwise(predicted))


def test_a_noisy_cost_is_predicted_with_a_margin(clock: ManualClock) -> None:
    costs = costs_after(clock, {4: 0.05})
    steady = costs.seconds(KIND, 4)
    for seconds in (0.04, 0.06) * 30:
        costs.measured(KIND, 4, seconds)
    assert costs.seconds(KIND, 4) > 1.2 * steady


def test_a_slow_first_call_and_a_single_slow_call_are_no_trend(clock: ManualClock) -> None:
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


def test_a_slow_moment_fades_without_further_calls(clock: ManualClock) -> None:
    costs = costs_after(clock, {4: 0.1})
    for _ in range(60):
        costs.measured(KIND, 4, 2.0)
    assert costs.seconds(KIND, 4) > 1.8
    clock.now += 8 * HALF_LIFE_S
    assert costs.seconds(KIND, 4) < 0.2


def test_fading_stops_at_the_lowest_cost_ever_measured(clock: ManualClock) -> None:
    costs = costs_after(clock, {4: 0.1})
    clock.now += 1e6
    assert costs.seconds(KIND, 4) >= 0.1


def test_how_long_calls_last_beside_others_is_apart_from_their_device_time(clock: ManualClock) -> None:
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
    assert costs.wall_s(KIND) < 0.8, "a single slow call is no trend"
    clock.now += 20 * HALF_LIFE_S
    assert costs.wall_s(KIND) == pytest.approx(alone, rel=0.01), "no other calls run beside it now"


def test_the_least_seconds_are_the_lowest_estimate_ever(clock: ManualClock) -> None:
    costs = costs_after(clock, {4: 0.1})
    least = costs.least_seconds(KIND, 4)
    for _ in range(40):
        costs.measured(KIND, 4, 0.3)
    assert costs.seconds(KIND, 4) > 0.29
    assert 0.1 <= costs.least_seconds(KIND, 4) == least
    assert costs.least_seconds(CallKind("decode"), 1) == 0.0


def test_a_kind_never_measured_is_estimated_from_the_closest_in_work(clock: ManualClock) -> None:
    costs = Costs(clock)
    for _ in range(40):
        costs.measured(CallKind("score", 10, 5), 4, 0.1)
        costs.measured(CallKind("score", 50, 16), 4, 2.0)
        costs.measured(KIND, 4, 7.0)
    assert costs.seconds(CallKind("score", 9, 5), 4) == pytest.approx(0.09, rel=0.05)
    assert costs.seconds(CallKind("score", 40, 16), 4) == pytest.approx(1.6, rel=0.05)


def test_slices_are_powers_of_two_within_the_time_limit(clock: ManualClock) -> None:
    costs = costs_after(clock, {1: 0.02, 2: 0.03, 4: 0.05})  # 10 ms, and 10 ms a row
    assert [costs.rows_within(KIND, seconds, most=6) for seconds in (0.01, 0.035, 0.055, 1.0)] == [1, 2, 4, 6]


def test_slices_are_not_cut_where_the_cost_of_a_call_dominates(clock: ManualClock) -> None:
    """A call takes 80 ms and 10 ms a row: eight rows take 160 ms in one call and 720 ms in eight."""
    costs = costs_after(clock, {1: 0.09, 4: 0.12, 8: 0.16})
    assert costs.rows_within(KIND, 0.05, most=8) == 8
    assert costs.rows_within(KIND, 0.05, most=16) == 8


def test_a_size_is_tried_although_it_was_never_measured(clock: ManualClock) -> None:
    """Otherwise a device whose calls cost the same at any size would get single rows for ever."""
    costs = costs_after(clock, {1: 0.09})
    assert costs.rows_within(KIND, 0.1, most=8) == 8
    for _ in range(20):
        costs.measured(KIND, 8, 0.09)
        costs.measured(KIND, 1, 0.09)
    assert costs.rows_within(KIND, 0.1, most=8) == 8
    for _ in range(200):
        costs.measured(KIND, 1, 0.09)
    assert costs.seconds(KIND, 8) == pytest.approx(0.09, rel=0.05)


def test_the_longest_recent_call_is_forgotten_within_seconds(clock: ManualClock) -> None:
    costs = Costs(clock)
    assert costs.longest_s() == 0.0
    costs.measured(KIND, 8, 0.1, wall_s=0.4)
    costs.measured(CallKind("score"), 8, 0.1)
    assert costs.longest_s() == 0.4
    clock.now += 2 * HALF_LIFE_S
    assert costs.longest_s() == pytest.approx(0.1)
    costs.measured(KIND, 1, 0.2)
    assert costs.longest_s() == 0.2
