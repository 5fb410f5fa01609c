"""Frames imagined on demand: those of the plan, one at a time, and never in a plan's way."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from tests.clock import ManualClock
from tests.planning.rig import Rig, RigOptions, example_request, rigged
from wavserve.core.errors import InvalidRequest, NotReady, Overloaded, UnknownSession
from wavserve.core.messages import ActionChunk
from wavserve.policy.on_demand import FramesOnDemand
from wavserve.policy.placement import Placement
from wavserve.policy.running import Activity
from wavserve.scheduling.admission import Demand
from wavserve.scheduling.ledger import Work

TASK = "task 1"
WORK = Work(1.0, 1.0)


class Held:
    """Holds calls of one verb until they are cancelled or let go, and counts those that were cancelled."""

    def __init__(self, verb: str = "denoise") -> None:
        self.verb = verb
        self.began, self.go = asyncio.Event(), asyncio.Event()
        self.num_cancelled = 0

    async def __call__(self, verb: str) -> None:
        if verb != self.verb:
            return
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            self.began.clear()
            raise


async def planned(rig: Rig, **changes: object) -> ActionChunk:
    return await rig.policy.plan(example_request(rig.spec, **changes))  # type: ignore[arg-type]


async def test_the_frames_are_those_that_the_plan_itself_would_have_imagined() -> None:
    async with rigged(RigOptions()) as rig:
        with_frames = await planned(rig, imagine_chunks=1)
        later = await planned(rig)
        frames = await rig.policy.imagine(later.session_id, TASK)
    assert set(frames) == {camera.name for camera in rig.spec.cameras}
    assert frames == with_frames.imagined


async def test_one_plan_at_a_time() -> None:
    held = Held()
    async with rigged(RigOptions(before=held)) as rig:
        chunk = await planned(rig)
        first = asyncio.create_task(rig.policy.imagine(chunk.session_id, TASK))
        await held.began.wait()
        with pytest.raises(Overloaded, match="one plan at a time"):
            await rig.policy.imagine(chunk.session_id, TASK)
        held.go.set()
        assert await first


async def test_a_plan_that_begins_ends_the_imagining_and_it_goes_on_afterwards() -> None:
    held = Held()
    async with rigged(RigOptions(before=held)) as rig:
        chunk = await planned(rig)
        imagining = asyncio.create_task(rig.policy.imagine(chunk.session_id, TASK))
        await held.began.wait()
        await planned(rig, seed=2)  # would wait for the held call for ever
        assert held.num_cancelled == 1
        await held.began.wait()
        held.go.set()
        assert await imagining


async def test_nothing_is_imagined_while_a_plan_runs() -> None:
    never = asyncio.Event()
    async with rigged(RigOptions()) as rig:
        chunk = await planned(rig)
        impatient = FramesOnDemand(
            rig.spec, Placement([rig.device], 0.0), rig.sessions, Activity(idle=never), within_s=0.05
        )
        with pytest.raises(Overloaded, match="plans come first"):
            await impatient.of(chunk.session_id, TASK)
        assert "denoise" not in {verb for verb, *_ in rig.backend.calls}


async def test_an_onlooker_who_leaves_frees_the_place() -> None:
    held = Held()
    async with rigged(RigOptions(before=held)) as rig:
        chunk = await planned(rig)
        imagining = asyncio.create_task(rig.policy.imagine(chunk.session_id, TASK))
        await held.began.wait()
        imagining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await imagining
        assert held.num_cancelled == 1
        held.go.set()
        assert await rig.policy.imagine(chunk.session_id, TASK)


async def test_a_draining_service_ends_the_imagining() -> None:
    held = Held()
    async with rigged(RigOptions(before=held)) as rig:
        chunk = await planned(rig)
        imagining = asyncio.create_task(rig.policy.imagine(chunk.session_id, TASK))
        await held.began.wait()
        await rig.policy.drain()
        with pytest.raises(NotReady):
            await imagining


async def test_a_session_without_such_a_plan_is_refused() -> None:
    async with rigged(RigOptions()) as rig:
        chunk = await planned(rig)
        with pytest.raises(InvalidRequest, match="newer plan"):
            await rig.policy.imagine(chunk.session_id, "another task")
        await rig.policy.reset(chunk.session_id)
        with pytest.raises(InvalidRequest, match="reset"):
            await rig.policy.imagine(chunk.session_id, TASK)
        await rig.policy.end_session(chunk.session_id)
        with pytest.raises(UnknownSession):
            await rig.policy.imagine(chunk.session_id, TASK)


async def test_what_is_imagined_changes_nothing_of_later_plans() -> None:
    async def second_plan(looks: bool) -> ActionChunk:
        async with rigged(RigOptions()) as rig:
            first = await planned(rig)
            if looks:
                await rig.policy.imagine(first.session_id, TASK)
            request = replace(example_request(rig.spec), session_id=first.session_id, sequence=1)
            return await rig.policy.plan(request)

    assert (await second_plan(True)).actions.tobytes() == (await second_plan(False)).actions.tobytes()


async def test_an_onlooker_does_not_prolong_a_session() -> None:
    clock = ManualClock()
    async with rigged(RigOptions(clock=clock)) as rig:  # sessions live for 60 s
        chunk = await planned(rig)
        clock.now += 40.0
        assert await rig.policy.imagine(chunk.session_id, TASK)
        clock.now += 40.0
        with pytest.raises(UnknownSession):
            await rig.policy.imagine(chunk.session_id, TASK)


async def test_what_an_onlooker_was_shown_makes_no_plan_wait_in_the_forecast() -> None:
    """A plan ends such calls, so none is expected to wait for one."""
    clock = ManualClock()

    async def slow(verb: str) -> None:
        if verb in ("denoise", "decode_video"):
            clock.now += 5.0

    async with rigged(RigOptions(clock=clock, before=slow)) as rig:
        chunk = await planned(rig)
        assert await rig.policy.imagine(chunk.session_id, TASK)
        [one, other] = [rig.admission.register(Demand("robot", WORK, WORK), math.inf) for _ in range(2)]
        ends = rig.admission.soonest_s()
        rig.admission.leave(one)
        rig.admission.leave(other)
    assert ends == pytest.approx(WORK.wall_s, abs=0.5)
