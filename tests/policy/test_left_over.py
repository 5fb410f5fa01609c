"""Plans that continue a left-over: what the models are asked, what a robot gets, what a retry and a replay see."""

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
from wavserve.core.errors import InvalidRequest, SequenceConflict
from wavserve.core.messages import ActionChunk
from wavserve.core.normalise import Normaliser, action_range
from wavserve.core.rtc import AppliedRtc, RtcRequest
from wavserve.core.spec import NormSpec, PolicySpec, RtcSpec
from wavserve.core.types import Array, PlanRequest
from wavserve.policy import records
from wavserve.policy.left_over import LeftOver
from wavserve.policy.sessions import Session
from wavserve.scheduling.costs import CallKind

ROWS = np.array([[0.5, -0.5], [0.1, 1 / 3], [-0.7, 0.9], [0.2, 0.3]], np.float32)
"""a left-over of four of six steps"""
STATE = np.array([0.3, -0.2, 0.1], np.float32)


def rtc(delay: int = 2, rows: Array = ROWS, **changes: Any) -> RtcRequest:
    same = {"mode": "rtc_guided", "inference_delay": delay, "prev_chunk_left_over": rows}
    return RtcRequest(**{**same, **changes})


async def second(rig: Rig, wish: RtcRequest | None, **changes: Any) -> ActionChunk:
    """The answer to a session's second request, after two executed steps."""
    begun = await rig.policy.plan(first())
    sent = {"sequence": 1, "control_step": 2, "executed_steps": 2, "rtc": wish, **changes}
    return await rig.policy.plan(follow(begun, 2, **sent))


def with_action(kind: str, norm: NormSpec, absolute_dims: tuple[int, ...] = ()) -> PolicySpec:
    vector = replace(SPEC.action.vector, norm=norm)
    action = replace(SPEC.action, vector=vector, kind=kind, absolute_dims=absolute_dims)  # type: ignore[arg-type]
    return replace(SPEC, action=action)


async def test_the_first_actions_are_those_that_were_sent_bit_for_bit(rig: Rig) -> None:
    chunk = await second(rig, rtc(delay=2))
    assert chunk.actions[:2].tobytes() == ROWS[:2].tobytes()
    assert chunk.frozen_prefix_steps == 2
    assert chunk.receipt.rtc == AppliedRtc(mode="rtc_guided", execution_horizon=6, inference_delay=2)
    free = await second(rig, None)
    assert not np.array_equal(free.actions[:2], chunk.actions[:2])
    assert (free.frozen_prefix_steps, free.receipt.rtc, free.receipt.seam_jump) == (0, None, None)


@pytest.mark.parametrize("absolute_dims", [(), (1,)])
@pytest.mark.parametrize("kind", ["absolute", "delta", "relative"])
@pytest.mark.parametrize("norm", [NormSpec("minmax", (-0.3, 1.0), (0.7, 3.0)), NormSpec("meanstd", (0.1, 7), (3, 2))])
async def test_frozen_actions_are_exact_in_every_kind_of_action(
    kind: str, norm: NormSpec, absolute_dims: tuple[int, ...], make_rig: MakeRig
) -> None:
    rig = await make_rig(RigOptions(spec=with_action(kind, norm, absolute_dims)))
    chunk = await second(rig, rtc(delay=2))
    assert chunk.actions[:2].tobytes() == ROWS[:2].tobytes()


def test_the_models_see_the_left_over_from_the_new_state_padded_with_its_last_action() -> None:
    spec = with_action("delta", NormSpec("meanstd", (0.0, 0.0), (0.5, 2.0)), absolute_dims=(1,))
    left_over = LeftOver.of(request(spec, rtc(delay=1)), spec, Normaliser(spec))
    assert left_over.continuation is not None
    increments = np.diff(ROWS[:, 0], prepend=STATE[0]) / 0.5
    expected = np.stack([[*increments, 0.0, 0.0], [*ROWS[:, 1] / 2, 0.15, 0.15]], axis=1)
    np.testing.assert_allclose(left_over.continuation.left_over, expected, atol=1e-5)
    np.testing.assert_allclose(left_over.continuation.weights, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6], rtol=1e-6)


def request(spec: PolicySpec, wish: RtcRequest | None, executed_steps: int = 2) -> PlanRequest:
    return PlanRequest(images={}, state=STATE, instruction="go", rtc=wish, executed_steps=executed_steps)


def test_sums_of_kind_delta_go_on_from_the_frozen_actions() -> None:
    spec = with_action("delta", NormSpec("meanstd", (0.0, 0.0), (0.5, 2.0)))
    normaliser = Normaliser(spec)
    left_over = LeftOver.of(request(spec, rtc(delay=2)), spec, normaliser)
    output = np.full((spec.chunk, 5), 0.1, np.float32)
    actions = left_over.continued(output, normaliser, STATE)
    steps = np.diff(actions[1:], axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to([0.05, 0.2], steps.shape), atol=1e-5)
    assert output[0, 0] == np.float32(0.1), "the output is not modified"


@pytest.mark.parametrize(
    ("wish", "spec"),
    [
        (None, SPEC),
        (rtc(mode="off"), SPEC),
        (rtc(delay=0, rows=ROWS[:0]), SPEC),
        (rtc(delay=0, prefix_attention_schedule="ZEROS"), SPEC),
        (rtc(delay=0, mode="rtc_trained"), replace(SPEC, max_trained_delay=3)),
        (None, replace(SPEC, rtc=RtcSpec(mode="rtc_guided", execution_horizon=6))),
    ],
    ids=["no wish", "off", "no left-over", "no weight", "no prefix", "a default without a left-over"],
)
def test_nothing_to_continue_is_a_plain_decode(wish: RtcRequest | None, spec: PolicySpec) -> None:
    left_over = LeftOver.of(request(spec, wish), spec, Normaliser(spec))
    assert left_over.continuation is None
    assert (left_over.num_frozen, left_over.guided) == (0, False)


async def test_the_seam_is_measured_after_the_frozen_actions_also_without_guidance(make_rig: MakeRig) -> None:
    spec = with_action("absolute", NormSpec("minmax", (-1.0, -10.0), (1.0, 10.0)))
    rig = await make_rig(RigOptions(spec=spec))
    jumps = {}
    for mode in ("off", "rtc_guided"):
        chunk = await second(rig, rtc(delay=2, mode=mode, prefix_attention_schedule="ONES"))
        expected = np.abs((chunk.actions[2] - ROWS[2]) / action_range(spec.action.vector.norm)).max()
        assert chunk.receipt.seam_jump == pytest.approx(expected, rel=1e-5, abs=1e-9)
        jumps[mode] = chunk.receipt.seam_jump
    assert jumps["rtc_guided"] < 1e-6 < jumps["off"], "the fake takes over actions of weight 1"
    assert (await second(rig, rtc(delay=2, rows=ROWS[:2]))).receipt.seam_jump is None


async def test_a_dimension_without_a_range_does_not_count(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(spec=with_action("absolute", NormSpec("minmax", (-1.0, 5.0), (1.0, 5.0)))))
    rows = np.array([[0.5, 5.0]] * 4, np.float32)
    chunk = await second(rig, rtc(delay=1, rows=rows, mode="off"))
    assert chunk.receipt.seam_jump == pytest.approx(abs(chunk.actions[1, 0] - 0.5) / 2, rel=1e-5)


async def test_a_trained_continuation_has_a_clean_prefix(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(spec=replace(SPEC, max_trained_delay=2)))
    chunk = await second(rig, rtc(delay=2, mode="rtc_trained"))
    assert chunk.actions[:2].tobytes() == ROWS[:2].tobytes()
    assert chunk.receipt.rtc is not None
    assert chunk.receipt.rtc.mode == "rtc_trained"


async def test_a_retry_has_the_same_left_over(rig: Rig) -> None:
    begun = await rig.policy.plan(first())
    sent = follow(begun, 2, sequence=1, executed_steps=2, rtc=rtc())
    answered = await rig.policy.plan(sent)
    again = await rig.policy.plan(replace(sent, rtc=rtc()))
    assert again.chunk_id == answered.chunk_id
    assert answered.receipt.digests["left_over"] == again.receipt.digests["left_over"]
    for other in (rtc(rows=ROWS + 1e-6), rtc(delay=1), rtc(execution_horizon=3), rtc(mode="off"), None):
        with pytest.raises(SequenceConflict):
            await rig.policy.plan(replace(sent, rtc=other))


async def test_a_wrong_left_over_is_refused_and_the_session_goes_on(rig: Rig) -> None:
    begun = await rig.policy.plan(first())
    with pytest.raises(InvalidRequest) as refused:
        await rig.policy.plan(follow(begun, 2, sequence=1, executed_steps=2, rtc=rtc(delay=3)))
    assert refused.value.field == "rtc.inference_delay"
    await rig.policy.plan(follow(begun, 2, sequence=1, executed_steps=2, rtc=rtc()))


async def test_guided_decodes_of_other_delays_share_a_call_and_free_ones_do_not(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(workers=1, depth=1))
    wishes = [rtc(delay=0), rtc(delay=2), None, None]
    sent = [
        first(1 + seed, executed_steps=2, rtc=wish, options={"num_iterations": 0}) for seed, wish in enumerate(wishes)
    ]
    together = await asyncio.gather(*map(rig.policy.plan, sent))
    decodes = [groups for verb, groups, _ in rig.backend.calls if verb == "decode"]
    assert sum(decodes) == 4
    assert max(decodes) <= 2
    for chunk, each in zip(together, sent, strict=True):
        alone = await (await make_rig(RigOptions())).policy.plan(each)
        np.testing.assert_allclose(chunk.actions, alone.actions, atol=1e-6)


async def test_a_guided_decode_has_a_cost_of_its_own(rig: Rig) -> None:
    await second(rig, rtc())
    costs = rig.planner.forecast.costs
    plain, guided = (CallKind("decode", SPEC.planner.num_flow_steps, guided=guided) for guided in (False, True))
    assert costs.wall_s(plain) > 0 < costs.wall_s(guided)
    for _ in range(30):
        costs.measured(guided, 1, 5.0)
        costs.measured(plain, 1, 1.0)
    config = SPEC.planner
    extra = [rig.planner.demand("r", config, 0, each).floor.device_s for each in (True, False)]
    assert extra[0] - extra[1] == pytest.approx(4.0, rel=0.3)


async def test_a_guided_decode_that_never_ran_is_predicted_from_a_plain_one(rig: Rig) -> None:
    costs = rig.planner.forecast.costs
    costs.measured(CallKind("decode", 10), 1, 1.0)
    plain, guided = (costs.seconds(CallKind("decode", 10, guided=guided), 1) for guided in (False, True))
    assert guided == pytest.approx(3 * plain)


async def test_a_record_has_the_left_over_and_replays_to_the_same_actions(make_rig: MakeRig, tmp_path: Path) -> None:
    async def keep(request: PlanRequest, session: Session, chunk: ActionChunk) -> None:
        records.save(tmp_path / f"{chunk.sequence}", request, session, chunk, "float32")

    rig = await make_rig(RigOptions(keep=keep))
    chunk = await second(rig, rtc(delay=2))
    await rig.policy.plan(follow(chunk, 3, sequence=2, executed_steps=1, rtc=RtcRequest(mode="rtc_guided")))
    await rig.policy.drain()
    rig.policy.warm = True
    empty = records.load(tmp_path / "2").request.rtc
    assert empty is not None
    assert (empty.mode, empty.prev_chunk_left_over.size) == ("rtc_guided", 0)
    record = records.load(tmp_path / "1")
    assert record.request.rtc is not None
    assert record.request.rtc.prev_chunk_left_over.tobytes() == ROWS.tobytes()
    session = Session("replayed", rig.policy.digest, memory=record.memory, last=record.last)
    await rig.sessions.commit(session)
    again = await rig.policy.plan(replace(record.request, session_id=session.id))
    assert Replay(chunk.actions, again.actions).identical
    assert again.frozen_prefix_steps == 2
