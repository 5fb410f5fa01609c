"""A plan that continues the last one: when it does, how far the means move, and that a record keeps the start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.rig import MakeRig, Rig, RigOptions
from tests.policy import requests
from tests.policy.requests import SPEC, first
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Gaussian, PlanRequest
from wavserve.planning.proposal import Proposal
from wavserve.policy import records
from wavserve.policy.sessions import LastPlan, Session
from wavserve.policy.warm_start import continued

CHUNK = SPEC.chunk
WARM = {"warm_start": True}
STANDARD = Proposal.standard((2, 3, 2, 2, 2), (CHUNK, 4), SPEC.planner)


def last_plan(control_step: int = 40) -> LastPlan:
    rng = np.random.default_rng(3)
    video, value = (
        Gaussian(rng.standard_normal(g.mean.shape, dtype=np.float32), np.full_like(g.std, 0.5))
        for g in (STANDARD.video, STANDARD.value)
    )
    return LastPlan("task", control_step, video, value)


def at_step_40(**changes: object) -> PlanRequest:
    return first(control_step=40, **changes)


def test_a_plan_that_ended_at_one_sample_is_not_continued() -> None:
    last = last_plan()
    assert continued(last, at_step_40(executed_steps=0), "task", STANDARD, CHUNK) is not None
    fixed = Gaussian(last.video.mean, np.zeros_like(last.video.std))
    assert continued(replace(last, video=fixed), at_step_40(executed_steps=0), "task", STANDARD, CHUNK) is None


@given(executed=st.integers(0, CHUNK - 1))
def test_means_move_by_the_executed_steps_and_stds_start_anew(executed: int) -> None:
    last = last_plan()
    start = continued(last, at_step_40(executed_steps=executed), "task", STANDARD, CHUNK)
    assert start is not None
    kept = CHUNK - executed
    np.testing.assert_array_equal(start.value.mean[:kept], last.value.mean[executed:])
    assert not start.value.mean[kept:].any()
    frames = executed * 2 // CHUNK  # a latent frame stays until all of its steps were executed
    np.testing.assert_array_equal(start.video.mean[:, :, : 2 - frames], last.video.mean[:, :, frames:])
    assert not start.video.mean[:, :, 2 - frames :].any()
    np.testing.assert_array_equal(start.video.std, STANDARD.video.std)
    np.testing.assert_array_equal(start.value.std, STANDARD.value.std)


@pytest.mark.parametrize(
    ("request_", "instruction"),
    [
        (at_step_40(), "another task"),
        (at_step_40(executed_steps=CHUNK), "task"),
        (replace(at_step_40(), control_step=40 + CHUNK), "task"),
        (replace(at_step_40(), control_step=39), "task"),
    ],
    ids=["another instruction", "all executed", "a long gap", "steps counted anew"],
)
def test_a_last_plan_of_another_time_or_task_is_not_continued(request_: PlanRequest, instruction: str) -> None:
    assert continued(last_plan(), request_, instruction, STANDARD, CHUNK) is None


def test_a_last_plan_of_other_shapes_is_not_continued() -> None:
    views = Proposal.standard((2, 3, 2, 2, 2), (CHUNK, 4), replace(SPEC.planner, per_view_noise=True))
    assert continued(last_plan(), at_step_40(), "task", views, CHUNK) is None


def follow(answer: ActionChunk, **changes: object) -> PlanRequest:
    """The second request of a session, after two executed steps."""
    return requests.follow(answer, sequence=1, executed_steps=2, **changes)


async def test_a_session_continues_its_last_plan_on_request(rig: Rig) -> None:
    opened = await rig.policy.plan(first(options=WARM))
    assert not opened.receipt.warm_start
    warm = await rig.policy.plan(follow(opened, options=WARM))
    other = await rig.policy.plan(first())
    cold = await rig.policy.plan(follow(other))
    assert (warm.receipt.warm_start, cold.receipt.warm_start) == (True, False)
    assert not np.array_equal(warm.actions, cold.actions)


@pytest.mark.parametrize("change", ["reset", "instruction", "policy"])
async def test_a_session_starts_anew_after_a_change_that_makes_its_last_plan_void(rig: Rig, change: str) -> None:
    opened = await rig.policy.plan(first(options=WARM))
    request = follow(opened, options=WARM)
    if change == "reset":
        await rig.policy.reset(opened.session_id)
    elif change == "instruction":
        request = replace(request, instruction="another task")
    else:
        rig.policy.digest = "another policy"
    assert not (await rig.policy.plan(request)).receipt.warm_start


@pytest.mark.parametrize(("mode", "continues"), [("paper", True), ("best_of_n", False)])
async def test_a_record_replays_to_the_same_warm_start(
    make_rig: MakeRig, tmp_path: Path, mode: str, continues: bool
) -> None:
    """`mode`: of the plan that may be continued. Noise of each view for itself has the shape of one sample's noise."""
    warm_start = WARM | {"per_view_noise": True}

    async def keep(request: PlanRequest, before: Session, result: ActionChunk) -> None:
        records.save(tmp_path / f"{result.sequence}.safetensors", request, before, result, "float32")

    rig = await make_rig(RigOptions(keep=keep))
    opened = await rig.policy.plan(first(options=warm_start | {"mode": mode}))
    warm = await rig.policy.plan(follow(opened, options=warm_start))
    assert warm.receipt.warm_start == continues
    await rig.policy.drain()
    rig.policy.warm = True
    for number, answered in enumerate((opened, warm)):
        record = records.load(tmp_path / f"{number}.safetensors")
        session = Session(f"replayed {number}", "fake", memory=record.memory, last=record.last)
        await rig.sessions.commit(session)
        again = await rig.policy.plan(replace(record.request, session_id=session.id))
        np.testing.assert_array_equal(again.actions, answered.actions)
        assert again.receipt.warm_start == answered.receipt.warm_start
