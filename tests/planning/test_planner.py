"""The planner on a fake backend: the algorithm, its deadlines, and what it leaves behind."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.rig import ManualClock, Rig, RigOptions, example_job, example_spec, rigged
from wavserve.core.errors import BackendError, StaleHandle
from wavserve.core.types import Gaussian, Plan, Stop
from wavserve.models.arena.book import ArenaBook, ArenaRole
from wavserve.planning.model_calls import PlanJob
from wavserve.scheduling.admission import Demand
from wavserve.scheduling.ledger import Work


def plan_with(options: RigOptions, *jobs: PlanJob) -> tuple[list[Plan], Rig]:
    """Plans for all jobs at once; what is left in the arena afterwards is checked."""

    async def main() -> tuple[list[Plan], Rig]:
        async with rigged(example_spec(), options) as rig:
            plans = await asyncio.gather(*(rig.planner.plan(job) for job in jobs))
            assert rig.backend.book.used == 0
            assert rig.batcher.slots_held == 0
            return plans, rig

    return asyncio.run(main())


def take_away_all(book: ArenaBook) -> None:
    for slot in range(book.num_slots):
        for generation in range(1, 40):
            handle = np.array([[slot, generation]])
            if book.current(handle):
                book.release(handle, ArenaRole.ACTION)


def assert_same(one: Plan, other: Plan) -> None:
    np.testing.assert_array_equal(one.actions, other.actions)
    for ours, theirs in zip(one.iterations, other.iterations, strict=True):
        assert ours.video_elites == theirs.video_elites
        assert ours.value_elites == theirs.value_elites


@settings(deadline=None, max_examples=25)
@given(
    slots=st.integers(3, 40),
    size=st.integers(1, 3),
    in_flight=st.integers(1, 3),
    rows=st.integers(1, 20),
    mode=st.sampled_from(["paper", "published", "off"]),
)
def test_a_plan_alone_is_the_plan_among_seven_others(
    slots: int, size: int, in_flight: int, rows: int, mode: str
) -> None:
    """Whatever the slicing, the batching and the size of the arena."""
    jobs = [example_job(example_spec(), seed, mode=mode, num_iterations=0 if mode == "off" else 2) for seed in range(8)]
    alone = [plan_with(RigOptions(slice_size=7), job)[0][0] for job in jobs[:2]]
    together, _ = plan_with(RigOptions(slots, size, in_flight, rows), *jobs)
    for one, other in zip(alone, together, strict=False):
        assert_same(one, other)


def test_eight_plans_share_an_arena_of_one_slice() -> None:
    """No deadlock: a plan holds slots only across calls that never allocate."""
    jobs = [example_job(example_spec(), seed) for seed in range(8)]
    plans, rig = plan_with(RigOptions(slots=3, slice_size=3, in_flight=3), *jobs)
    assert all(len(plan.iterations) == 2 for plan in plans)
    assert max(rows for verb, groups, rows in rig.backend.calls if verb == "imagine") == 3


def test_groups_of_different_plans_share_calls() -> None:
    jobs = [example_job(example_spec(), seed) for seed in range(8)]
    _, rig = plan_with(RigOptions(max_rows=24), *jobs)
    assert max(groups for verb, groups, _ in rig.backend.calls if verb == "imagine") == 8


def test_modes_differ_and_off_spends_no_iteration() -> None:
    spec = example_spec()
    paper, published, off = (
        plan_with(RigOptions(), example_job(spec, 1, mode=mode, num_iterations=0 if mode == "off" else 2))[0][0]
        for mode in ("paper", "published", "off")
    )
    assert [len(plan.iterations) for plan in (paper, published, off)] == [2, 2, 0]
    assert paper.iterations[0].video_elites != published.iterations[0].video_elites
    assert not np.array_equal(paper.actions, off.actions)
    assert not np.array_equal(paper.actions, published.actions)


def test_planning_narrows_the_noise() -> None:
    plan = plan_with(RigOptions(), example_job(example_spec(), 1, num_iterations=5))[0][0]
    stds = [1.0, *(record.video_std for record in plan.iterations)]
    assert all(after < before for before, after in itertools.pairwise(stds))


def test_a_value_estimate_comes_when_asked_for() -> None:
    job = example_job(example_spec(), 1)
    without, asked = (
        plan_with(RigOptions(), replace(job, config=replace(job.config, estimate_value=ask)))[0][0]
        for ask in (False, True)
    )
    assert without.value_estimate is None
    assert asked.value_estimate is not None
    assert np.isfinite(asked.value_estimate)
    np.testing.assert_array_equal(without.actions, asked.actions)


@pytest.mark.parametrize(("budget_s", "iterations"), [(100.0, 4), (9.5, 2), (3.9, 0), (0.1, 0)])
def test_it_stops_before_the_iteration_that_would_be_late(budget_s: float, iterations: int) -> None:
    """An iteration of 7 samples in one slice is one imagine and one score: 2 + 1 s; the final decode takes 3 s."""
    clock = ManualClock()
    seconds = {"imagine": 2.0, "score": 1.0, "value_features": 0.5, "decode": 0.5}

    async def before(verb: str) -> None:
        clock.now += seconds[verb] if seconds.get(verb) else 0.0

    async def main() -> None:
        options = RigOptions(slice_size=7, clock=clock, before=before)
        async with rigged(example_spec(), options) as rig:
            job = example_job(rig.spec, 1, num_iterations=4)
            for _ in range(40):  # the estimates settle
                await rig.planner.plan(job)
            demand = rig.planner.demand("robot", job.config, imagine_chunks=0)
            ticket = rig.planner.admission.register(demand, clock.now + budget_s)
            plan = await rig.planner.plan(replace(job, ticket=ticket))
            assert len(plan.iterations) == iterations
            assert plan.stopped is (Stop.DONE if iterations == 4 else Stop.OUT_OF_TIME)

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["random_scores", "fixed_shrink"])
def test_the_controls_ask_no_model_while_they_plan(mode: str) -> None:
    plan, rig = plan_with(RigOptions(), example_job(example_spec(), 1, mode=mode, num_iterations=3))
    assert len(plan[0].iterations) == 3
    assert [verb for verb, _, _ in rig.backend.calls] == [
        "imagine",
        "imagine",
        "value_features",
        "decode",
    ]  # one text miss
    paper = plan_with(RigOptions(), example_job(example_spec(), 1, num_iterations=3))[0][0]
    assert not np.array_equal(plan[0].actions, paper.actions)


def test_random_scores_are_the_seed_s_and_choose_other_elites() -> None:
    def elites(seed: int, mode: str) -> list[tuple[int, ...]]:
        plan = plan_with(RigOptions(), example_job(example_spec(), seed, mode=mode))[0][0]
        return [record.video_elites for record in plan.iterations]

    assert elites(1, "random_scores") == elites(1, "random_scores")
    assert elites(1, "random_scores") != elites(2, "random_scores")
    assert elites(1, "random_scores") != elites(1, "paper")


def test_planning_stops_when_the_noise_has_settled() -> None:
    job = example_job(example_spec(), 1, num_iterations=9, smoothing=0.5)
    whole = plan_with(RigOptions(), job)[0][0]
    moved = [record.moved for record in whole.iterations]
    limit = sorted(moved)[4]
    expected = 1 + next(k for k, distance in enumerate(moved) if distance < limit)
    settled = plan_with(RigOptions(), replace(job, config=replace(job.config, early_stop=limit)))[0][0]
    assert settled.stopped is Stop.SETTLED
    assert len(settled.iterations) == expected < 9
    assert whole.stopped is Stop.DONE


def test_a_plan_begins_where_it_is_told_to() -> None:
    job = example_job(example_spec(), 1, mode="off", num_iterations=0)

    async def main() -> None:
        async with rigged(example_spec()) as rig:
            standard = rig.planner.standard(job.config)
            moved = replace(standard, video=Gaussian(standard.video.mean + 1, standard.video.std))
            cold, same, warm = [await rig.planner.plan(replace(job, start=s)) for s in (None, standard, moved)]
            np.testing.assert_array_equal(cold.actions, same.actions)
            assert not np.array_equal(cold.actions, warm.actions)
            np.testing.assert_array_equal(warm.video.mean, moved.video.mean)

    asyncio.run(main())


def test_an_iteration_is_not_granted_at_another_plan_s_cost() -> None:
    """An iteration takes 3 s and the final decode 3 s: there is time for one, until somebody needs it."""
    clock = ManualClock()
    seconds = {"imagine": 2.0, "score": 1.0, "value_features": 0.5, "decode": 0.5}

    async def before(verb: str) -> None:
        clock.now += seconds.get(verb, 0.0)

    async def main() -> None:
        options = RigOptions(slice_size=7, in_flight=1, clock=clock, before=before, slice_s=3.5)
        async with rigged(example_spec(), options) as rig:
            job = example_job(rig.spec, 1, num_iterations=1)
            for _ in range(40):
                await rig.planner.plan(job)
            for others_s, iterations in ((0.0, 1), (6.0, 0)):
                demand = rig.planner.demand(f"robot {others_s}", job.config, imagine_chunks=0)
                ticket = rig.planner.admission.register(demand, clock.now + 10.0)
                other = rig.planner.admission.register(
                    Demand("other", Work(others_s), Work(others_s)), clock.now + 13.0
                )
                plan = await rig.planner.plan(replace(job, ticket=ticket))
                assert len(plan.iterations) == iterations
                rig.planner.admission.leave(ticket)
                rig.planner.admission.leave(other)

    asyncio.run(main())


def test_features_that_vanished_are_imagined_again() -> None:
    vanish = [2]

    async def main() -> Plan:
        async with rigged(example_spec()) as rig:

            async def before(verb: str) -> None:
                if verb == "score" and vanish[0]:
                    vanish[0] -= 1
                    take_away_all(rig.backend.book)

            rig.backend.before = before
            return await rig.planner.plan(example_job(rig.spec, 1))

    assert_same(asyncio.run(main()), plan_with(RigOptions(), example_job(example_spec(), 1))[0][0])
    assert vanish == [0]


def test_features_that_keep_vanishing_end_the_plan() -> None:
    async def main() -> None:
        async with rigged(example_spec()) as rig:

            async def before(verb: str) -> None:
                if verb == "score":
                    take_away_all(rig.backend.book)

            rig.backend.before = before
            with pytest.raises(StaleHandle):
                await rig.planner.plan(example_job(rig.spec, 1))

    asyncio.run(main())


def test_the_embedding_is_sent_only_when_it_is_missed() -> None:
    job = example_job(example_spec(), 1)
    _, rig = plan_with(RigOptions(in_flight=1, depth=1), job)
    imagined = [call for call in rig.backend.calls if call[0] == "imagine"]
    slices = 2 * 3 + 1  # two iterations of 3 slices, and the final draw
    assert len(imagined) == slices + 1  # one miss


@pytest.mark.parametrize("verb", ["imagine", "score", "value_features", "decode"])
def test_a_cancelled_plan_leaves_no_slot_behind(verb: str) -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def before(called: str) -> None:
            if called == verb:
                reached.set()
            await asyncio.sleep(0)

        async with rigged(example_spec(), RigOptions(before=before)) as rig:
            planning = asyncio.ensure_future(rig.planner.plan(example_job(rig.spec, 1)))
            await reached.wait()
            planning.cancel()
            await asyncio.gather(planning, return_exceptions=True)
            other = await rig.planner.plan(example_job(rig.spec, 2))  # also flushes the releases
            assert len(other.iterations) == 2
            for _ in range(50):
                await asyncio.sleep(0)
            assert rig.backend.book.used == 0
            assert rig.batcher.slots_held == 0

    asyncio.run(main())


@pytest.mark.parametrize("verb", ["imagine", "score", "value_features", "decode"])
def test_a_failing_model_ends_the_plan_and_frees_its_slots(verb: str) -> None:
    async def main() -> None:
        async def before(called: str) -> None:
            if called == verb:
                raise BackendError("the model is gone")

        async with rigged(example_spec(), RigOptions(before=before)) as rig:
            with pytest.raises(BackendError, match="the model is gone"):
                await rig.planner.plan(example_job(rig.spec, 1))
            for _ in range(50):
                await asyncio.sleep(0)
            assert rig.backend.book.used == 0

    asyncio.run(main())
