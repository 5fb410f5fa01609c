"""The planner on a fake backend: what a plan is made of, how plans share a device, and when planning stops."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clock import ManualClock
from tests.planning.rig import MakeRig, Rig, RigOptions, example_job, example_spec, rigged
from wavserve.core.noise import Stream
from wavserve.core.options import merge_options
from wavserve.core.types import Gaussian, Plan, Stop
from wavserve.planning.model_calls import PlanJob
from wavserve.planning.proposal import Proposal
from wavserve.scheduling.admission import Demand
from wavserve.scheduling.costs import CallKind
from wavserve.scheduling.ledger import Ticket, Work

SPEC = example_spec()
CALL_S = {"imagine": 2.0, "score": 1.0, "value_features": 0.5, "decode": 0.5}


async def plans_on(rig: Rig, *jobs: PlanJob) -> list[Plan]:
    """Plans for all jobs at once. Afterwards no arena slot is taken."""
    plans = await asyncio.gather(*(rig.planner.plan(job) for job in jobs))
    assert rig.backend.book.used == 0
    assert rig.batcher.slots_held == 0
    return plans


async def plan_on(rig: Rig, job: PlanJob) -> Plan:
    [plan] = await plans_on(rig, job)
    return plan


def job_of_mode(mode: str, seed: int = 1) -> PlanJob:
    return example_job(SPEC, seed, mode=mode, num_iterations=0 if mode == "off" else 2)


def assert_same(one: Plan, other: Plan) -> None:
    np.testing.assert_array_equal(one.actions, other.actions)
    for ours, theirs in zip(one.iterations, other.iterations, strict=True):
        assert ours.video_elites == theirs.video_elites
        assert ours.value_elites == theirs.value_elites


def most(rig: Rig, verb: str) -> tuple[int, int]:
    """The most groups and the most rows in one call of a verb."""
    calls = [(groups, rows) for called, groups, rows in rig.backend.calls if called == verb]
    return max(groups for groups, _ in calls), max(rows for _, rows in calls)


async def rig_of_slow_calls(make_rig: MakeRig, clock: ManualClock, options: RigOptions) -> Rig:
    """A rig whose calls take CALL_S of a clock."""

    async def take_time(verb: str) -> None:
        clock.now += CALL_S.get(verb, 0.0)

    return await make_rig(replace(options, clock=clock, before=take_time))


async def settle_estimates(rig: Rig, job: PlanJob) -> None:
    """Plans until the cost model knows what calls take."""
    for _ in range(40):
        await rig.planner.plan(job)


@settings(deadline=None, max_examples=25)
@given(
    slots=st.integers(3, 40),
    size=st.integers(1, 3),
    in_flight=st.integers(1, 3),
    rows=st.integers(1, 20),
    mode=st.sampled_from(["paper", "published", "off"]),
)
async def test_a_plan_alone_equals_the_plan_among_seven_others(
    slots: int, size: int, in_flight: int, rows: int, mode: str
) -> None:
    """For every slicing, batching and size of the arena."""
    jobs = [job_of_mode(mode, seed) for seed in range(8)]
    alone = []
    for job in jobs[:2]:
        async with rigged(RigOptions(slice_size=7)) as rig:
            alone.append(await plan_on(rig, job))
    async with rigged(RigOptions(slots, size, in_flight, rows)) as rig:
        together = await plans_on(rig, *jobs)
    for one, other in zip(alone, together[:2], strict=True):
        assert_same(one, other)


async def test_eight_plans_share_an_arena_of_one_slice(make_rig: MakeRig) -> None:
    """No deadlock: a plan holds slots only across calls that never allocate."""
    rig = await make_rig(RigOptions(slots=3, slice_size=3, in_flight=3))
    plans = await plans_on(rig, *(example_job(SPEC, seed) for seed in range(8)))
    assert all(len(plan.iterations) == 2 for plan in plans)
    assert most(rig, "imagine")[1] == 3


async def test_groups_of_different_plans_share_calls(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(max_rows=24))
    await plans_on(rig, *(example_job(SPEC, seed) for seed in range(8)))
    assert most(rig, "imagine")[0] == 8


async def test_a_plan_of_fixed_shapes_makes_the_same_calls_whatever_they_cost(make_rig: MakeRig) -> None:
    """Seven samples are a slice of four and one of three. Without the option expensive rows make the slices smaller."""
    rig = await make_rig(RigOptions(slice_size=7, slice_s=2.0))
    job = example_job(SPEC, 1)
    fixed = replace(job, config=replace(job.config, fixed_shapes=True))
    await plan_on(rig, job)  # the models have the text then
    assert await slices_of(rig, fixed) == [3, 3, 4, 4]
    assert await slices_of(rig, job) == [7, 7]
    for rows in (1, 2, 4) * 20:
        rig.planner.forecast.costs.measured(CallKind("imagine", job.config.num_video_steps), rows, 1.0 * rows)
    assert await slices_of(rig, fixed) == [3, 3, 4, 4]
    assert await slices_of(rig, job) != [7, 7]
    assert rig.planner.demand("", fixed.config, 0).alone
    assert not rig.planner.demand("", job.config, 0).alone


async def slices_of(rig: Rig, job: PlanJob) -> list[int]:
    """Samples of each call in which the plan's iterations imagine, from the fewest on."""
    before = len(rig.backend.calls)
    await plan_on(rig, job)
    return sorted(rows for verb, _, rows in rig.backend.calls[before:] if verb == "imagine")[1:]  # one for the decode


async def test_plans_of_fixed_shapes_share_no_call(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(max_rows=24))
    jobs = [replace(example_job(SPEC, seed), ticket=Ticket(alone=True)) for seed in range(8)]
    await plans_on(rig, *jobs)
    assert {groups for _, groups, _ in rig.backend.calls} == {1}


async def test_modes_differ_and_off_does_no_iteration(rig: Rig) -> None:
    paper, published, off = [await plan_on(rig, job_of_mode(mode)) for mode in ("paper", "published", "off")]
    assert [len(plan.iterations) for plan in (paper, published, off)] == [2, 2, 0]
    assert paper.iterations[0].video_elites != published.iterations[0].video_elites
    assert not np.array_equal(paper.actions, off.actions)
    assert not np.array_equal(paper.actions, published.actions)


async def test_planning_narrows_the_noise(rig: Rig) -> None:
    plan = await plan_on(rig, example_job(SPEC, 1, num_iterations=5))
    stds = [1.0, *(record.video_std for record in plan.iterations)]
    assert all(after < before for before, after in itertools.pairwise(stds))


async def test_a_value_estimate_is_made_on_request_and_changes_no_action(rig: Rig) -> None:
    job = example_job(SPEC, 1)
    without, estimated = [
        await plan_on(rig, replace(job, config=replace(job.config, estimate_value=estimate)))
        for estimate in (False, True)
    ]
    assert without.estimate is None
    assert estimated.estimate is not None
    assert np.isfinite(estimated.estimate.score)
    assert estimated.estimate.values.shape == (job.config.num_value_samples,)
    np.testing.assert_array_equal(without.actions, estimated.actions)


@pytest.mark.parametrize("mode", ["random_scores", "fixed_shrink"])
async def test_the_controls_call_no_model_during_their_iterations(make_rig: MakeRig, mode: str) -> None:
    rig = await make_rig(RigOptions())
    plan = await plan_on(rig, example_job(SPEC, 1, mode=mode, num_iterations=3))
    assert len(plan.iterations) == 3
    # the text is missed once, so the first imagine is repeated
    assert [verb for verb, _, _ in rig.backend.calls] == ["imagine", "imagine", "value_features", "decode"]
    paper = await plan_on(rig, example_job(SPEC, 1, num_iterations=3))
    assert not np.array_equal(plan.actions, paper.actions)


async def test_random_scores_depend_on_the_seed_and_choose_other_elites(rig: Rig) -> None:
    async def elites(seed: int, mode: str) -> list[tuple[int, ...]]:
        plan = await plan_on(rig, example_job(SPEC, seed, mode=mode))
        return [record.video_elites for record in plan.iterations]

    first = await elites(1, "random_scores")
    assert await elites(1, "random_scores") == first
    assert await elites(2, "random_scores") != first
    assert await elites(1, "paper") != first


async def test_the_best_of_n_is_what_is_decoded(make_rig: MakeRig) -> None:
    """A plan without iterations from the noise of the best sample has the same actions."""
    rig = await make_rig(RigOptions())
    job = example_job(SPEC, 1)
    config = merge_options(job.config, SPEC.bounds, {"mode": "best_of_n"})
    assert merge_options(job.config, SPEC.bounds, {"mode": "best_of_n", "num_iterations": 0}).num_iterations == 0
    plan = await plan_on(rig, replace(job, config=config))
    [record] = plan.iterations
    best = int(np.argmax(record.scores))
    assert record.video_elites == (best,)
    noise = job.noise.draw(Stream.VIDEO, 0, [best], rig.planner.calls.video_shape)[0]
    np.testing.assert_array_equal(plan.video.mean, noise)
    assert not plan.video.std.any()
    start = Proposal(plan.video, plan.value)
    decoded = await plan_on(rig, replace(job, config=replace(config, num_iterations=0), start=start))
    np.testing.assert_array_equal(plan.actions, decoded.actions)
    assert not np.array_equal(plan.actions, (await plan_on(rig, job_of_mode("off"))).actions)


async def test_a_value_estimate_is_the_modes_own_score(rig: Rig) -> None:
    options = {"num_iterations": 0, "estimate_value": True}
    ratio, mean = [
        (await plan_on(rig, example_job(SPEC, 1, mode=mode, **options))).estimate for mode in ("paper", "mean")
    ]
    assert ratio is not None
    assert mean is not None
    assert ratio.score != mean.score == mean.values.max()
    np.testing.assert_array_equal(ratio.values, mean.values)


async def test_planning_stops_when_the_noise_has_settled(rig: Rig) -> None:
    job = example_job(SPEC, 1, num_iterations=9, smoothing=0.5)
    whole = await plan_on(rig, job)
    moved = [record.moved for record in whole.iterations]
    limit = sorted(moved)[4]
    expected = 1 + next(k for k, distance in enumerate(moved) if distance < limit)
    settled = await plan_on(rig, replace(job, config=replace(job.config, early_stop=limit)))
    assert settled.stopped is Stop.SETTLED
    assert len(settled.iterations) == expected < 9
    assert whole.stopped is Stop.DONE


async def test_a_plan_begins_at_its_start(rig: Rig) -> None:
    job = example_job(SPEC, 1, mode="off", num_iterations=0)
    standard = rig.planner.standard(job.config)
    moved = replace(standard, video=Gaussian(standard.video.mean + 1, standard.video.std))
    cold, same, warm = [await plan_on(rig, replace(job, start=start)) for start in (None, standard, moved)]
    np.testing.assert_array_equal(cold.actions, same.actions)
    assert not np.array_equal(cold.actions, warm.actions)
    np.testing.assert_array_equal(warm.video.mean, moved.video.mean)


@pytest.mark.parametrize(("budget_s", "iterations"), [(100.0, 4), (9.5, 2), (3.9, 0), (0.1, 0)])
async def test_planning_stops_before_an_iteration_that_would_be_late(
    make_rig: MakeRig, budget_s: float, iterations: int
) -> None:
    """An iteration of 7 samples in one slice is one imagine and one score: 2 + 1 s; the final decode takes 3 s."""
    clock = ManualClock()
    rig = await rig_of_slow_calls(make_rig, clock, RigOptions(slice_size=7))
    job = example_job(SPEC, 1, num_iterations=4)
    await settle_estimates(rig, job)
    demand = rig.planner.demand("robot", job.config, imagine_chunks=0)
    ticket = rig.admission.register(demand, clock.now + budget_s)
    plan = await plan_on(rig, replace(job, ticket=ticket))
    assert len(plan.iterations) == iterations
    assert plan.stopped is (Stop.DONE if iterations == 4 else Stop.OUT_OF_TIME)


async def test_an_iteration_that_would_make_another_plan_late_is_not_granted(make_rig: MakeRig) -> None:
    """An iteration takes 3 s and the final decode 3 s: there is time for one unless another plan needs it."""
    clock = ManualClock()
    rig = await rig_of_slow_calls(make_rig, clock, RigOptions(slice_size=7, in_flight=1, slice_s=3.5))
    job = example_job(SPEC, 1, num_iterations=1)
    await settle_estimates(rig, job)
    for other_s, iterations in ((0.0, 1), (6.0, 0)):
        demand = rig.planner.demand(f"robot {other_s}", job.config, imagine_chunks=0)
        ticket = rig.admission.register(demand, clock.now + 10.0)
        other = rig.admission.register(Demand("other", Work(other_s), Work(other_s)), clock.now + 13.0)
        plan = await plan_on(rig, replace(job, ticket=ticket))
        assert len(plan.iterations) == iterations
        rig.admission.leave(ticket)
        rig.admission.leave(other)
