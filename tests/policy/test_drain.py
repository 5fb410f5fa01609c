"""The policy's start and end: warm-up, draining, and the records of answered plans."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.clock import yield_to_loop
from tests.planning.rig import MakeRig, Rig, RigOptions
from tests.policy.requests import SPEC, first
from wavserve.core.errors import ModelDown, NotReady
from wavserve.core.messages import ActionChunk
from wavserve.core.types import PlanRequest
from wavserve.planning.device import Health
from wavserve.policy.sessions import Session


async def test_nothing_is_planned_before_the_warm_up_or_while_draining(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(ready=False))
    with pytest.raises(NotReady, match="the service is starting"):
        await rig.policy.plan(first())
    await rig.policy.warm_up()
    assert rig.policy.ready
    called = {verb for verb, _, _ in rig.backend.calls}
    assert called >= {"encode_images", "encode_text", "imagine", "score", "decode"}
    assert len(rig.sessions) == 0
    running = asyncio.ensure_future(rig.policy.plan(first()))
    await yield_to_loop(3)
    draining = asyncio.ensure_future(rig.policy.drain())
    await yield_to_loop(2)
    with pytest.raises(NotReady, match="the service is draining"):
        await rig.policy.plan(first())
    await draining
    assert (await running).sequence == 0


async def test_plans_that_outlast_the_drain_are_answered(rig: Rig) -> None:
    async def hang(verb: str) -> None:
        await asyncio.Event().wait()

    rig.backend.before = hang
    running = asyncio.ensure_future(rig.policy.plan(first()))
    await yield_to_loop(3)
    await rig.policy.drain(timeout_s=0.01)
    with pytest.raises(NotReady, match="stopped"):
        await running


async def test_a_plan_whose_models_go_down_while_draining_is_refused_at_once(make_rig: MakeRig) -> None:
    """It would otherwise wait for a repair, which does not come."""
    rig, gone = await make_rig(RigOptions()), asyncio.Event()

    async def go_down(verb: str) -> None:
        await gone.wait()
        rig.device.health = lambda: Health.DOWN
        raise ModelDown(f"{verb}: gone")

    rig.backend.before = go_down
    running = asyncio.ensure_future(rig.policy.plan(first()))
    await yield_to_loop(3)
    draining = asyncio.ensure_future(rig.policy.drain(timeout_s=60.0))
    await yield_to_loop(3)
    gone.set()
    async with asyncio.timeout(20):
        with pytest.raises(NotReady, match="stopping"):
            await running
        await draining


async def test_a_slow_recorder_delays_no_answer_and_the_drain_waits_for_it(make_rig: MakeRig) -> None:
    written = asyncio.Event()

    async def keep(request: PlanRequest, before: Session, result: ActionChunk) -> None:
        await written.wait()

    rig = await make_rig(RigOptions(keep=keep))
    await rig.policy.plan(first(), deadline=time.monotonic() + 10)
    draining = asyncio.ensure_future(rig.policy.drain())
    await yield_to_loop(5)
    assert not draining.done()
    written.set()
    await draining


async def test_the_drain_waits_for_the_records_of_plans_that_end_meanwhile(make_rig: MakeRig) -> None:
    go_on, written = asyncio.Event(), asyncio.Event()

    async def keep(request: PlanRequest, before: Session, result: ActionChunk) -> None:
        await written.wait()

    async def hold(verb: str) -> None:
        await go_on.wait()

    rig = await make_rig(RigOptions(keep=keep, before=hold))
    planning = asyncio.ensure_future(rig.policy.plan(first()))
    await yield_to_loop(5)
    draining = asyncio.ensure_future(rig.policy.drain())
    await yield_to_loop(5)
    go_on.set()
    await planning
    await yield_to_loop(5)
    assert not draining.done()
    written.set()
    await draining


async def test_a_record_that_fails_is_logged_and_costs_no_answer(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    async def keep(request: PlanRequest, before: Session, result: ActionChunk) -> None:
        raise RuntimeError("the disk is on fire")

    rig = await make_rig(RigOptions(keep=keep))
    assert (await rig.policy.plan(first())).actions.shape == (SPEC.chunk, 2)
    await rig.policy.drain()
    assert "could not be recorded" in caplog.text
    assert "the disk is on fire" in caplog.text
