"""What a request without a deadline is answered: actions, receipt, imagined frames; and which requests are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.planning.rig import MakeRig, Rig, RigOptions
from tests.policy.requests import SPEC, first
from wavserve.core.errors import InvalidRequest, UnknownPolicy
from wavserve.core.spec import NormSpec
from wavserve.core.types import DeadlineResult
from wavserve.policy.imagined import encode_png


async def test_a_plan_has_actions_and_a_complete_receipt(rig: Rig) -> None:
    result = await rig.policy.plan(first(control_step=40))
    assert result.actions.shape == (SPEC.chunk, 2)
    assert np.isfinite(result.actions).all()
    assert (result.first_control_step, result.sequence) == (40, 0)
    receipt = result.receipt
    assert (receipt.policy, receipt.policy_digest, receipt.untrained, receipt.seed) == ("example", "fake", True, 1)
    assert receipt.deadline is DeadlineResult.NONE
    assert receipt.iterations_done == len(receipt.iterations) == 2
    assert set(receipt.digests) == {"images.top", "images.wrist", "state", "instruction", "memory"}
    assert {"encode", "imagine", "score", "refit", "decode", "queued", "total"} <= set(receipt.stage_s)


async def test_an_estimated_value_is_told_in_units_of_the_return(make_rig: MakeRig) -> None:
    """The policy declares mean 0.4 and deviation 0.2 of the return: a value of 0 means 0.4."""
    norm = NormSpec("meanstd", (0.0, 0.4), (1.0, 0.2))
    plain, declared = [
        await make_rig(RigOptions(spec=replace(SPEC, value_norm=value_norm))) for value_norm in (None, norm)
    ]
    request = first(options={"num_iterations": 0, "num_value_samples": 1, "estimate_value": True, "mode": "mean"})
    unknown, receipt = [(await each.policy.plan(request)).receipt for each in (plain, declared)]
    assert unknown.expected_return is None
    assert receipt.value_estimate == unknown.value_estimate
    value = receipt.value_estimate
    assert value is not None
    expected = 0.4 + 0.2 * math.copysign(math.expm1(abs(value)), value)
    assert receipt.expected_return == pytest.approx(expected, rel=1e-5)
    assert (await declared.policy.plan(first())).receipt.expected_return is None, "not asked for"


async def test_the_same_seed_gives_the_same_actions_and_another_sequence_number_gives_others(rig: Rig) -> None:
    one = await rig.policy.plan(first())
    other = await rig.policy.plan(first())
    later = await rig.policy.plan(first(sequence=1))
    assert one.session_id != other.session_id
    np.testing.assert_array_equal(one.actions, other.actions)
    assert not np.array_equal(one.actions, later.actions)


async def test_a_request_without_a_seed_gets_a_drawn_one_and_it_is_reported(rig: Rig) -> None:
    request = first()
    drawn = await rig.policy.plan(replace(request, seed=None))
    again = await rig.policy.plan(replace(request, seed=drawn.receipt.seed))
    np.testing.assert_array_equal(drawn.actions, again.actions)
    other = await rig.policy.plan(replace(request, seed=None))
    assert other.receipt.seed != drawn.receipt.seed


async def test_seed_zero_is_a_seed(rig: Rig) -> None:
    request = replace(first(), seed=0)
    one, other = await rig.policy.plan(request), await rig.policy.plan(request)
    assert one.receipt.seed == 0
    np.testing.assert_array_equal(one.actions, other.actions)


async def test_another_policy_is_refused_by_name(rig: Rig) -> None:
    with pytest.raises(UnknownPolicy, match="expected example, got 'other'"):
        await rig.policy.plan(first(policy="other"))
    assert (await rig.policy.plan(first(policy="example"))).receipt.policy == "example"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"iterations": 3}, "planner.iterations"),
        ({"num_iterations": 11}, "planner.num_iterations"),
        ({"num_iterations": True}, "planner.num_iterations"),
        ({"num_video_samples": 65}, "planner.num_video_samples"),
        ({"num_value_samples": 0}, "planner.num_value_samples"),
        ({"num_flow_steps": 2.0}, "planner.num_flow_steps"),
        ({"smoothing": float("nan")}, "planner.smoothing"),
        ({"decay": 1.1}, "planner.decay"),
        ({"mode": "best"}, "planner.mode"),
        ({"video_elite_fraction": 0.1}, "planner.video_elite_fraction"),
        ({"num_video_samples": 2, "num_value_samples": 1}, "planner.video_elite_fraction"),
        ({"num_video_samples": 1}, "planner.num_video_samples"),
        ({"smoothing": 10**400}, "planner.smoothing"),
        ({"num_video_samples": 3, "num_value_samples": 1}, "planner.value_elite_fraction"),
    ],
)
async def test_planner_options_out_of_bounds_are_refused(rig: Rig, options: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await rig.policy.plan(first(options=options))
    assert refused.value.field == field
    assert refused.value.expected
    assert refused.value.actual
    assert not rig.backend.calls


async def test_options_reach_the_plan(rig: Rig) -> None:
    options = {"num_iterations": 1, "num_video_samples": 4, "mode": "published", "per_view_noise": True}
    receipt = (await rig.policy.plan(first(options=options))).receipt
    assert receipt.iterations[0].snr.shape == (4, 3)
    assert (receipt.config.mode, receipt.iterations_done) == ("published", 1)


async def test_imagined_frames_are_sent_on_request_and_change_no_action(rig: Rig) -> None:
    plain = await rig.policy.plan(first())
    shown = await rig.policy.plan(first(imagine_chunks=2))
    assert plain.imagined == {}
    assert {name: len(frames) for name, frames in shown.imagined.items()} == {"top": 18, "wrist": 18}
    for frame in shown.imagined["top"]:
        picture = Image.open(BytesIO(frame.data))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (8, 8))
        assert (frame.height, frame.width) == (8, 8)
    np.testing.assert_array_equal(plain.actions, shown.actions)


async def test_each_imagined_chunk_has_noise_of_its_own(rig: Rig) -> None:
    shown = await rig.policy.plan(first(imagine_chunks=2))
    one, other = shown.imagined["top"][:9], shown.imagined["top"][9:]
    assert len(one) == len(other)
    assert one != other


def test_a_frame_survives_png() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)
    picture = encode_png("top", frame)
    assert (picture.height, picture.width) == (40, 24)
    np.testing.assert_array_equal(np.array(Image.open(BytesIO(picture.data))), frame)
