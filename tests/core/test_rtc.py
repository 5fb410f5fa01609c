"""The weights of a left-over, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.planning.rig import example_spec
from wavserve.core.errors import InvalidRequest
from wavserve.core.rtc import AppliedRtc, RtcRequest, prefix_weights
from wavserve.core.rtc_options import merge_rtc
from wavserve.core.spec import PREFIX_SCHEDULES, PrefixSchedule

E = math.e
EXPECTED = {
    "LINEAR": [1, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0],
    "EXP": [
        1,
        1,
        0.75 * (E**0.75 - 1) / (E - 1),
        0.5 * (E**0.5 - 1) / (E - 1),
        0.25 * (E**0.25 - 1) / (E - 1),
        0,
        0,
    ],
    "ONES": [1, 1, 1, 1, 1, 0, 0],
    "ZEROS": [1, 1, 0, 0, 0, 0, 0],
}


@pytest.mark.parametrize("schedule", PREFIX_SCHEDULES)
def test_weights_fall_from_the_delay_to_the_horizon(schedule: PrefixSchedule) -> None:
    weights = prefix_weights(schedule, delay=2, horizon=5, num_steps=7)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, EXPECTED[schedule], rtol=1e-6)


@pytest.mark.parametrize("schedule", PREFIX_SCHEDULES)
@pytest.mark.parametrize(("delay", "horizon"), [(3, 3), (3, 1), (4, 0)])
def test_a_delay_beyond_the_horizon_keeps_its_weight(schedule: PrefixSchedule, delay: int, horizon: int) -> None:
    expected = [1.0] * delay + [0.0] * (5 - delay)
    assert prefix_weights(schedule, delay, horizon, num_steps=5).tolist() == expected


def test_without_a_delay_the_first_step_already_falls() -> None:
    np.testing.assert_allclose(prefix_weights("LINEAR", 0, 3, 4), [3 / 4, 2 / 4, 1 / 4, 0])


def test_a_horizon_beyond_the_chunk_falls_more_slowly() -> None:
    np.testing.assert_allclose(prefix_weights("LINEAR", 1, 9, 3), [1, 8 / 9, 7 / 9], rtol=1e-6)


def test_the_policys_defaults_fill_in_what_a_request_leaves_out() -> None:
    spec = example_spec()
    assert merge_rtc(spec, None, 0) == AppliedRtc(execution_horizon=6)
    left_over = np.zeros((3, 2), np.float32)
    merged = merge_rtc(spec, RtcRequest(mode="rtc_guided", inference_delay=1, prev_chunk_left_over=left_over), 2)
    assert merged == AppliedRtc(mode="rtc_guided", execution_horizon=6, inference_delay=1)


@pytest.mark.parametrize(("delay", "executed"), [(0, 0), (1, 1), (1, 5), (2, 2), (2, 4), (3, 3)])
def test_the_papers_condition_holds_at_its_ends(delay: int, executed: int) -> None:
    left_over = np.zeros((3, 2), np.float32)
    request = RtcRequest(inference_delay=delay, prev_chunk_left_over=left_over)
    assert merge_rtc(example_spec(), request, executed).inference_delay == delay  # a horizon of 6
    if delay:
        for wrong in (delay - 1, 6 - delay + 1):
            with pytest.raises(InvalidRequest):
                merge_rtc(example_spec(), request, wrong)


@pytest.mark.parametrize("left_over", [np.zeros(2, np.float32), np.zeros((1, 1, 2), np.float32)])
def test_a_left_over_that_is_no_matrix_is_refused(left_over: np.ndarray) -> None:
    with pytest.raises(InvalidRequest, match=r"rtc.prev_chunk_left_over: expected \[n, 2\] numbers, got shape"):
        merge_rtc(example_spec(), RtcRequest(prev_chunk_left_over=left_over), 0)
