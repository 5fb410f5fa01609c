"""The gate in the life of a plan: what a robot gets, what its session keeps, what a retry and a replay see."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.planning.rig import MakeRig, Rig, RigOptions
from tests.policy.requests import SPEC, first, follow
from wavserve.app.replay import Replay
from wavserve.core.errors import UnsafeChunk
from wavserve.core.messages import ActionChunk
from wavserve.core.spec import LimitsSpec, PolicySpec
from wavserve.core.types import Array, PlanRequest
from wavserve.policy import records
from wavserve.policy.sessions import Session

CHUNK = SPEC.chunk
NOTHING = LimitsSpec(position=((50.0, 60.0), None))
"""limits that no action of the fake keeps"""


def limited(limits: LimitsSpec, **action: Any) -> PolicySpec:
    """The example policy with limits. Its action is another quantity than its state."""
    vector = replace(SPEC.action.vector, names=("a", "b"))
    return replace(SPEC, action=replace(SPEC.action, vector=vector, limits=limits, **action))


class GatedRig:
    """Rigs with limits that are made for the plans of this test."""

    def __init__(self, make_rig: MakeRig) -> None:
        self._make_rig = make_rig
        self.broken: list[str] = []
        """what became of each plan that broke a limit"""

    async def make(self, limits: LimitsSpec, options: RigOptions | None = None, **action: Any) -> Rig:
        own = replace(
            options or RigOptions(),
            spec=limited(limits, **action),
            on_broken=lambda outcome, _: self.broken.append(outcome),
        )
        return await self._make_rig(own)

    async def actions(self, seed: int) -> Array:
        """The actions of a seed's first plan under no limits."""
        rig = await self._make_rig(RigOptions(spec=limited(LimitsSpec())))
        return (await rig.policy.plan(first(seed))).actions


@pytest.fixture
def gated(make_rig: MakeRig) -> GatedRig:
    return GatedRig(make_rig)


def fastest_step(actions: Array) -> tuple[int, float]:
    """The step with the largest velocity of the first number, and a bound that only this step breaks."""
    velocity = np.abs(np.diff(actions[:, 0].astype(np.float64))) * SPEC.control_hz
    slower, fastest = np.sort(velocity)[-2:]
    return int(velocity.argmax()) + 1, float(slower + fastest) / 2


async def test_a_chunk_that_breaks_a_limit_is_cut_and_ends_earlier(gated: GatedRig) -> None:
    whole = await gated.actions(1)
    step, bound = fastest_step(whole)
    rig = await gated.make(LimitsSpec(velocity=(bound, None)))
    chunk = await rig.policy.plan(first(1, control_step=40))
    np.testing.assert_array_equal(chunk.actions, whole[:step])
    assert (chunk.first_control_step, chunk.valid_until_step) == (40, 40 + step)
    assert chunk.cut is not None
    assert (chunk.cut.step, chunk.cut.name, chunk.cut.limit, chunk.cut.bound) == (step, "a", "velocity", bound)
    assert abs(chunk.cut.value) > bound
    assert gated.broken == ["cut"]
    session = await rig.sessions.load(chunk.session_id)
    assert session is not None
    assert session.last is not None
    assert session.last.actions is chunk.actions


async def test_a_chunk_within_its_limits_is_whole_and_has_the_actions_of_a_policy_without_any(gated: GatedRig) -> None:
    whole = await gated.actions(1)
    rig = await gated.make(LimitsSpec(((-50.0, 60.0), None), (1e6, None), (1e9, None), CHUNK))
    chunk = await rig.policy.plan(first(1))
    assert chunk.actions.tobytes() == whole.tobytes()
    assert chunk.cut is None
    assert gated.broken == []


async def test_the_id_of_a_cut_chunk_is_another_than_that_of_the_whole_one(gated: GatedRig) -> None:
    step, bound = fastest_step(await gated.actions(1))
    rig = await gated.make(LimitsSpec(velocity=(bound, None)))
    await rig.sessions.commit(Session("s", "fake"))
    cut = await rig.policy.plan(first(1, session_id="s"))
    rig = await gated.make(LimitsSpec())
    await rig.sessions.commit(Session("s", "fake"))
    whole = await rig.policy.plan(first(1, session_id="s"))
    assert len(cut.actions) == step
    assert cut.chunk_id != whole.chunk_id


async def test_a_retry_gets_the_cut_chunk_and_passes_no_gate_again(gated: GatedRig) -> None:
    _, bound = fastest_step(await gated.actions(1))
    rig = await gated.make(LimitsSpec(velocity=(bound, None)))
    opened = await rig.policy.plan(first(1))
    again = await rig.policy.plan(follow(opened, 1))
    assert again == opened
    assert gated.broken == ["cut"]


async def test_a_refused_chunk_opens_no_session(gated: GatedRig) -> None:
    rig = await gated.make(NOTHING)
    with pytest.raises(UnsafeChunk, match="step 0 of the plan: position"):
        await rig.policy.plan(first(1))
    assert len(rig.sessions) == 0
    assert gated.broken == ["refused"]


async def test_a_refused_chunk_leaves_the_session_as_it_was(gated: GatedRig) -> None:
    rig = await gated.make(LimitsSpec())
    opened = await rig.policy.plan(first(1))
    before = await rig.sessions.load(opened.session_id)
    strict = await gated.make(NOTHING, RigOptions(store=lambda _: rig.sessions))
    with pytest.raises(UnsafeChunk):
        await strict.policy.plan(follow(opened, 2, sequence=1))
    assert await rig.sessions.load(opened.session_id) is before
    later = await rig.policy.plan(follow(opened, 2, sequence=1))
    assert later.sequence == 1


async def test_callers_that_share_a_refused_plan_all_get_the_refusal_and_it_counts_once(gated: GatedRig) -> None:
    rig = await gated.make(LimitsSpec())
    opened = await rig.policy.plan(first(1))
    strict = await gated.make(NOTHING, RigOptions(store=lambda _: rig.sessions))
    plans = [strict.policy.plan(follow(opened, 2, sequence=1)) for _ in range(3)]
    answers = await asyncio.gather(*plans, return_exceptions=True)
    assert [type(answer) for answer in answers] == [UnsafeChunk] * 3
    assert gated.broken == ["refused"]


async def test_warm_up_plans_pass_no_gate(gated: GatedRig) -> None:
    rig = await gated.make(NOTHING)
    await rig.policy.warm_up()
    assert gated.broken == []
    await rig.policy.drain()


async def in_session(rig: Rig, committed: Array, memory: Session) -> str:
    """Opens a session whose last chunk, for the steps from 0 on, had the actions `committed`."""
    assert memory.last is not None
    session = replace(memory, id="s", version=0, last=replace(memory.last, actions=committed, control_step=0))
    await rig.sessions.commit(session)
    return session.id


@pytest.fixture
async def memory(gated: GatedRig) -> Session:
    """A session with one plan."""
    rig = await gated.make(LimitsSpec())
    opened = await rig.policy.plan(first(1))
    session = await rig.sessions.load(opened.session_id)
    assert session is not None
    return session


def second(**changes: Any) -> PlanRequest:
    return first(2, **{"session_id": "s", "sequence": 1, "control_step": CHUNK, "executed_steps": CHUNK, **changes})


async def test_the_first_step_is_measured_from_the_last_committed_action(gated: GatedRig, memory: Session) -> None:
    far = np.full((CHUNK, 2), 5.0, np.float32)
    rig = await gated.make(LimitsSpec())
    await in_session(rig, far, memory)
    whole = (await rig.policy.plan(second())).actions
    bound = float(np.abs(np.diff(whole[:, 0])).max()) * SPEC.control_hz * 1.001
    rig = await gated.make(LimitsSpec(velocity=(bound, None)))
    await in_session(rig, far, memory)
    with pytest.raises(UnsafeChunk) as refused:
        await rig.policy.plan(second())
    assert refused.value.broken is not None
    assert refused.value.broken.value == pytest.approx((whole[0, 0] - 5.0) * SPEC.control_hz)
    late = await rig.policy.plan(second(executed_steps=CHUNK + 1))  # more than the last chunk had
    assert late.actions.shape == whole.shape


async def test_after_a_reset_nothing_precedes_the_first_step(gated: GatedRig, memory: Session) -> None:
    rig = await gated.make(LimitsSpec(velocity=(20.0, None), min_horizon=CHUNK))
    await in_session(rig, np.full((CHUNK, 2), 5.0, np.float32), memory)
    with pytest.raises(UnsafeChunk):
        await rig.policy.plan(second())
    await rig.policy.reset("s")
    assert (await rig.policy.plan(second())).cut is None


async def test_a_replay_is_cut_where_the_recorded_plan_was(gated: GatedRig, memory: Session, tmp_path: Path) -> None:
    """Here the limit is broken only after the actions of the plan before."""
    rig = await gated.make(LimitsSpec())
    await in_session(rig, np.zeros((CHUNK, 2), np.float32), memory)
    whole = (await rig.policy.plan(second())).actions
    standing = np.tile(whole[0], (CHUNK, 1))
    bound = float(abs(whole[1, 0] - whole[0, 0])) * SPEC.control_hz**3 / 2

    async def keep(request: PlanRequest, before: Session, result: ActionChunk) -> None:
        records.save(tmp_path / "record.safetensors", request, before, result, "float32")

    rig = await gated.make(LimitsSpec(jerk=(bound, None)), RigOptions(keep=keep))
    await in_session(rig, standing, memory)
    chunk = await rig.policy.plan(second())
    assert len(chunk.actions) == 1
    await rig.policy.drain()
    rig.policy.warm = True
    record = records.load(tmp_path / "record.safetensors")
    await rig.sessions.commit(Session("replayed", "fake", memory=record.memory, last=record.last))
    again = await rig.policy.plan(replace(record.request, session_id="replayed"))
    assert Replay(record.actions, again.actions).identical
    assert again.cut == chunk.cut


async def test_a_plan_of_a_stream_replays_in_a_session_without_epochs(
    gated: GatedRig, memory: Session, tmp_path: Path
) -> None:
    rig = await gated.make(LimitsSpec())
    await rig.sessions.commit(replace(memory, id="s", version=0, epoch=3))
    chunk = await rig.policy.plan(second(epoch=3))
    records.save(tmp_path / "record.safetensors", second(epoch=3), memory, chunk, "float32")
    record = records.load(tmp_path / "record.safetensors")
    await rig.sessions.commit(Session("replayed", "fake", memory=record.memory, last=record.last))
    again = await rig.policy.plan(replace(record.request, session_id="replayed"))
    assert Replay(record.actions, again.actions).identical


def test_a_replay_with_other_steps_is_no_error_of_a_number() -> None:
    assert Replay(np.zeros((3, 2), np.float32), np.zeros((1, 2), np.float32)).max_error == np.inf


async def test_of_deltas_the_running_sum_is_checked(gated: GatedRig) -> None:
    """The model's output is small at every step; the commands are its sum, and start at the state."""
    free = await gated.make(LimitsSpec(), kind="delta")
    whole = (await free.policy.plan(first(1))).actions[:, 0]
    low, high = float(whole.min()), float(whole.max())
    middle = (low + high) / 2
    limits = LimitsSpec(position=((-50.0, middle) if whole[0] < middle else (middle, 50.0), None))
    chunk = await (await gated.make(limits, kind="delta")).policy.plan(first(1))
    kept = whole < middle if whole[0] < middle else whole > middle
    assert len(chunk.actions) == int(np.argmin(kept))


async def test_a_plan_says_whether_it_saw_an_earlier_frame(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    assert opened.fresh_memory
    assert (await rig.policy.plan(follow(opened))).fresh_memory  # a retry has the first answer
    assert not (await rig.policy.plan(follow(opened, sequence=1))).fresh_memory
    await rig.policy.reset(opened.session_id)
    assert (await rig.policy.plan(follow(opened, sequence=2))).fresh_memory
    assert not (await rig.policy.plan(follow(opened, sequence=3))).fresh_memory
    rig.policy.digest = "another policy"
    assert (await rig.policy.plan(follow(opened, sequence=4))).fresh_memory


async def test_a_warm_start_continues_the_whole_plan_of_which_only_a_part_was_sent(gated: GatedRig) -> None:
    warm = {"options": {"warm_start": True}}
    step, bound = fastest_step(await gated.actions(1))
    free = await gated.make(LimitsSpec())
    opened = await free.policy.plan(first(1, **warm))
    expected = await free.policy.plan(follow(opened, 1, sequence=1, executed_steps=step, control_step=step, **warm))
    rig = await gated.make(LimitsSpec(velocity=(bound, None)), RigOptions(store=lambda _: free.sessions))
    opened = await rig.policy.plan(first(1, **warm))
    assert len(opened.actions) == step
    continued = await free.policy.plan(follow(opened, 1, sequence=1, executed_steps=step, control_step=step, **warm))
    assert continued.receipt.warm_start
    np.testing.assert_array_equal(continued.actions, expected.actions)
