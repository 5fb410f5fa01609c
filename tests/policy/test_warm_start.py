"""A plan that goes on from the last one: when it does, how far the means are moved on, and that a replay knows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.rig import Rig, RigOptions, example_request, example_spec, rigged
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Gaussian, PlanRequest
from wavserve.planning.proposal import Proposal
from wavserve.policy import records
from wavserve.policy.sessions import LastPlan, Session
from wavserve.policy.warm_start import continued

SPEC = example_spec()
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


def asked(**changes: object) -> PlanRequest:
    return example_request(SPEC, control_step=40, **changes)


@given(executed=st.integers(0, CHUNK - 1))
def test_means_move_on_by_the_executed_steps_and_the_spread_starts_anew(executed: int) -> None:
    last = last_plan()
    start = continued(last, asked(executed_steps=executed), "task", STANDARD, CHUNK)
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
        (asked(), "another task"),
        (asked(executed_steps=CHUNK), "task"),
        (replace(asked(), control_step=40 + CHUNK), "task"),
        (replace(asked(), control_step=39), "task"),
    ],
    ids=["another instruction", "all executed", "a long gap", "steps counted anew"],
)
def test_a_plan_of_another_time_or_task_says_nothing(request_: PlanRequest, instruction: str) -> None:
    assert continued(last_plan(), request_, instruction, STANDARD, CHUNK) is None


def test_a_plan_of_other_shapes_says_nothing() -> None:
    views = Proposal.standard((2, 3, 2, 2, 2), (CHUNK, 4), replace(SPEC.planner, per_view_noise=True))
    assert continued(last_plan(), asked(), "task", views, CHUNK) is None


def on_rig(scenario: Callable[[Rig], Awaitable[None]], options: RigOptions | None = None) -> None:
    async def main() -> None:
        async with rigged(SPEC, options) as rig, asyncio.timeout(20):
            await scenario(rig)

    asyncio.run(main())


def follow(first: ActionChunk, **changes: object) -> PlanRequest:
    return example_request(SPEC, session_id=first.session_id, sequence=1, executed_steps=2, **changes)


def test_a_session_goes_on_from_its_last_plan_when_asked_to() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC, options=WARM))
        assert not first.receipt.warm_start
        warm = await rig.policy.plan(follow(first, options=WARM))
        other = await rig.policy.plan(example_request(SPEC))
        cold = await rig.policy.plan(follow(other))
        assert (warm.receipt.warm_start, cold.receipt.warm_start) == (True, False)
        assert not np.array_equal(warm.actions, cold.actions)

    on_rig(scenario)


@pytest.mark.parametrize("change", ["reset", "instruction", "policy"])
def test_a_session_starts_anew_after_what_makes_its_last_plan_void(change: str) -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC, options=WARM))
        request = follow(first, options=WARM)
        if change == "reset":
            await rig.policy.reset(first.session_id)
        elif change == "instruction":
            request = replace(request, instruction="another task")
        else:
            rig.policy.digest = "another policy"
        assert not (await rig.policy.plan(request)).receipt.warm_start

    on_rig(scenario)


def test_a_record_keeps_what_a_warm_start_began_from(tmp_path: Path) -> None:
    """So that a replay of it makes the same plan."""

    async def keep(request: PlanRequest, before: Session, result: ActionChunk) -> None:
        records.save(tmp_path / f"{result.sequence}.safetensors", request, before, result, "float32")

    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC, options=WARM))
        warm = await rig.policy.plan(follow(first, options=WARM))
        await rig.policy.drain()
        rig.policy.warm = True
        for number, answered in enumerate((first, warm)):
            record = records.load(tmp_path / f"{number}.safetensors")
            session = Session("replayed", "fake", number, memory=record.memory, last=record.last)
            rig.sessions._sessions.clear()
            await rig.sessions.commit(replace(session, version=0))
            again = await rig.policy.plan(replace(record.request, session_id="replayed"))
            np.testing.assert_array_equal(again.actions, answered.actions)
            assert again.receipt.warm_start == answered.receipt.warm_start

    on_rig(scenario, RigOptions(keep=keep))
