"""Deadlines of plans that were admitted: met, missed, and what a missed one reports."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.clock import ManualClock, yield_to_loop
from tests.planning.rig import MakeRig, Rig, RigOptions
from tests.policy.requests import first, follow
from wavserve.core.errors import DeadlineExceeded
from wavserve.core.types import DeadlineResult


async def test_a_generous_deadline_is_met(rig: Rig) -> None:
    receipt = (await rig.policy.plan(first(), deadline=time.monotonic() + 1000)).receipt
    assert receipt.deadline is DeadlineResult.MET
    assert receipt.slack_s is not None
    assert 0 < receipt.slack_s < 1000


async def test_a_deadline_that_passed_is_an_error_and_changes_nothing(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    before = await rig.sessions.load(opened.session_id)
    with pytest.raises(DeadlineExceeded):
        await rig.policy.plan(follow(opened, 2, sequence=1), deadline=time.monotonic() - 0.001)
    await yield_to_loop(200)
    assert rig.policy.plans_in_flight == 0
    assert await rig.sessions.load(opened.session_id) is before
    assert rig.backend.book.used == 0


async def test_a_retry_is_not_bound_by_the_deadline_of_the_plan_it_joined(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    request, given_up = follow(opened, 2, sequence=1), asyncio.Event()

    async def miss_the_deadline(verb: str) -> None:
        if verb == "imagine" and not given_up.is_set():
            await given_up.wait()
            raise DeadlineExceeded("no answer before the deadline")

    rig.backend.before = miss_the_deadline
    bounded = asyncio.ensure_future(rig.policy.plan(request, time.monotonic() + 60))
    await yield_to_loop()
    retries = [asyncio.ensure_future(rig.policy.plan(request)) for _ in range(2)]
    await yield_to_loop()
    given_up.set()
    with pytest.raises(DeadlineExceeded):
        await bounded
    one, other = await asyncio.gather(*retries)
    assert one is other
    assert one.receipt.deadline is DeadlineResult.NONE
    assert rig.policy.plans_in_flight == 0


async def test_a_missed_plan_reports_what_was_spent_on_it(make_rig: MakeRig) -> None:
    clock = ManualClock()
    rig = await make_rig(RigOptions(clock=clock))

    async def hang_in_the_second_iteration(verb: str) -> None:
        if verb == "score" and sum(called == "score" for called, _, _ in rig.backend.calls) >= 3:
            clock.now += 2.0
            await asyncio.Event().wait()

    rig.backend.before = hang_in_the_second_iteration
    with pytest.raises(DeadlineExceeded) as error:
        await rig.policy.plan(first(), deadline=clock.now + 1.0)
    missed = error.value.missed
    assert missed is not None
    assert (missed.iterations_done, missed.num_video_samples, missed.num_value_samples) == (1, 7, 3)
    assert missed.slack_ms <= 0


async def test_the_schedule_is_empty_after_an_answered_plan_and_after_a_cancelled_one(rig: Rig) -> None:
    await rig.policy.plan(first(), time.monotonic() + 60)
    assert rig.admission.remaining_s == 0
    running = asyncio.ensure_future(rig.policy.plan(first(), time.monotonic() + 60))
    await yield_to_loop(5)
    assert rig.admission.remaining_s > 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await yield_to_loop(50)
    assert rig.admission.remaining_s == 0
