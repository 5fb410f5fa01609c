"""The planner when features vanish, the text is missed, a model fails or the plan is cancelled."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.clock import yield_to_loop
from tests.planning.rig import MakeRig, Rig, RigOptions, example_job, example_spec
from wavserve.core.errors import BackendError, StaleHandle
from wavserve.models.arena.book import ArenaBook, ArenaRole

SPEC = example_spec()
VERBS = ["imagine", "score", "value_features", "decode"]


def release_all(book: ArenaBook) -> None:
    """Releases every slot, whatever its generation."""
    for slot in range(book.num_slots):
        for generation in range(1, 40):
            handle = np.array([[slot, generation]])
            if book.current(handle):
                book.release(handle, ArenaRole.ACTION)


async def test_features_that_vanished_are_imagined_again(rig: Rig) -> None:
    undisturbed = await rig.planner.plan(example_job(SPEC, 1))
    vanish = 2

    async def let_vanish(verb: str) -> None:
        nonlocal vanish
        if verb == "score" and vanish:
            vanish -= 1
            release_all(rig.backend.book)

    rig.backend.before = let_vanish
    plan = await rig.planner.plan(example_job(SPEC, 1))
    np.testing.assert_array_equal(plan.actions, undisturbed.actions)
    for ours, theirs in zip(plan.iterations, undisturbed.iterations, strict=True):
        assert ours.video_elites == theirs.video_elites
        assert ours.value_elites == theirs.value_elites
    assert vanish == 0


async def test_features_that_keep_vanishing_end_the_plan(rig: Rig) -> None:
    async def let_vanish(verb: str) -> None:
        if verb == "score":
            release_all(rig.backend.book)

    rig.backend.before = let_vanish
    with pytest.raises(StaleHandle):
        await rig.planner.plan(example_job(SPEC, 1))


async def test_the_embedding_is_sent_only_when_it_is_missed(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(in_flight=1, depth=1))
    await rig.planner.plan(example_job(SPEC, 1))
    assert rig.backend.book.used == 0
    assert rig.batcher.slots_held == 0
    imagined = [verb for verb, _, _ in rig.backend.calls if verb == "imagine"]
    slices = 2 * 3 + 1  # two iterations of 3 slices, and the final draw
    assert len(imagined) == slices + 1  # one miss


@pytest.mark.parametrize("verb", VERBS)
async def test_a_cancelled_plan_leaves_no_slot_behind(rig: Rig, verb: str) -> None:
    reached = asyncio.Event()

    async def report(called: str) -> None:
        if called == verb:
            reached.set()
        await asyncio.sleep(0)

    rig.backend.before = report
    planning = asyncio.ensure_future(rig.planner.plan(example_job(SPEC, 1)))
    await reached.wait()
    planning.cancel()
    await asyncio.gather(planning, return_exceptions=True)
    other = await rig.planner.plan(example_job(SPEC, 2))  # its calls also bring the releases to an end
    assert len(other.iterations) == 2
    await yield_to_loop(50)
    assert rig.backend.book.used == 0
    assert rig.batcher.slots_held == 0


@pytest.mark.parametrize("verb", VERBS)
async def test_a_failing_model_ends_the_plan_and_frees_its_slots(rig: Rig, verb: str) -> None:
    async def fail(called: str) -> None:
        if called == verb:
            raise BackendError("the model is gone")

    rig.backend.before = fail
    with pytest.raises(BackendError, match="the model is gone"):
        await rig.planner.plan(example_job(SPEC, 1))
    await yield_to_loop(50)
    assert rig.backend.book.used == 0
