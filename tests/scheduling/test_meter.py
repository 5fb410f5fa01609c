"""The meter: a call is charged from the moment it runs, and the charges sum to the time in which calls ran."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import ManualClock
from wavserve.core.verbs import MODELS
from wavserve.scheduling.meter import Charge, Meter


def test_calls_that_run_at_once_share_the_device_time(clock: ManualClock) -> None:
    meter = Meter(clock, workers=2)
    first = meter.hand_over("a")
    clock.now += 1.0
    second = meter.hand_over("b")
    clock.now += 1.0
    assert meter.end(first) == Charge(1.5, 2.0)
    clock.now += 1.0
    assert meter.end(second) == Charge(1.5, 2.0)
    clock.now += 5.0  # idle
    third = meter.hand_over("a")
    clock.now += 1.0
    assert meter.end(third) == Charge(1.0, 1.0)


def test_a_call_that_waits_behind_another_is_charged_from_when_it_runs(clock: ManualClock) -> None:
    meter = Meter(clock)
    imagine, decode = meter.hand_over("video_dit"), meter.hand_over("action_dit")
    assert not decode.runs
    clock.now += 0.100
    assert meter.end(imagine) == Charge(pytest.approx(0.100), pytest.approx(0.100))
    assert decode.runs
    clock.now += 0.005
    assert meter.end(decode) == Charge(pytest.approx(0.005), pytest.approx(0.005))


def test_a_call_waits_for_its_model_while_a_later_one_of_another_model_runs(clock: ManualClock) -> None:
    meter = Meter(clock, workers=2, one_call_per_model=True)
    first, second, other = meter.hand_over("a"), meter.hand_over("a"), meter.hand_over("b")
    assert (first.runs, second.runs, other.runs) == (True, False, True)
    assert not meter.starts_at_once("c")
    meter.end(first)
    assert second.runs
    meter.end(other)
    assert meter.starts_at_once("c")
    assert not meter.starts_at_once("a")


def test_a_waiting_call_that_ends_is_not_charged_and_delays_nobody(clock: ManualClock) -> None:
    """Its callers gave up."""
    meter = Meter(clock)
    first, dropped, last = (meter.hand_over("a") for _ in range(3))
    clock.now += 1.0
    assert meter.end(dropped) == Charge(0.0, 0.0, ran=False)
    clock.now += 1.0
    assert meter.end(first) == Charge(2.0, 2.0)
    clock.now += 1.0
    assert meter.end(last) == Charge(1.0, 1.0)


@given(
    events=st.lists(st.tuples(st.floats(0.0, 10.0), st.integers(0, 9), st.sampled_from(MODELS)), max_size=60),
    workers=st.integers(1, 3),
    one_call_per_model=st.booleans(),
)
def test_charges_sum_to_the_busy_time_and_each_is_within_its_run(
    events: list[tuple[float, int, str]], workers: int, one_call_per_model: bool
) -> None:
    """Hand-overs and ends in any order, among at most four calls; the device's busy time is counted apart."""
    clock = ManualClock()
    meter = Meter(clock, workers, one_call_per_model)
    handed, charged_s, busy_s = [], 0.0, 0.0
    for pause_s, number, model in events:
        clock.now += pause_s
        busy_s += pause_s if handed else 0.0
        if number < 5 and len(handed) < 4:
            handed.append(meter.hand_over(model))
        elif handed:
            call = handed.pop(number % len(handed))
            ran = call.runs
            used_s, run_s, _ = meter.end(call)
            charged_s += used_s
            assert 0.0 <= used_s <= run_s + 1e-9
            assert run_s <= clock.now - call.handed_at + 1e-9
            assert ran or run_s == 0.0
        running = [call.model for call in handed if call.runs]
        assert len(running) <= workers
        assert not handed or running, "the device never idles while it has a call"
        if one_call_per_model:
            assert len(set(running)) == len(running)
    for call in list(handed):
        charged_s += meter.end(call)[0]
    assert charged_s == pytest.approx(busy_s, abs=1e-6)
