"""Places for requests that are still being read: refusals before any work, and the time and the places they keep."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.clock import ManualClock, yield_to_loop
from tests.planning.rig import MakeRig, Rig, RigOptions
from tests.policy.requests import first, follow
from wavserve.core.errors import NotReady, Overloaded
from wavserve.core.types import DeadlineResult
from wavserve.scheduling.admission import Demand
from wavserve.scheduling.ledger import Work
from wavserve.scheduling.permits import PERMIT_S


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def slow_rig(make_rig: MakeRig, clock: ManualClock) -> Rig:
    """A warm rig whose every decode takes a second of the clock."""

    async def take_time(verb: str) -> None:
        clock.now += 1.0 if verb == "decode" else 0.0

    rig = await make_rig(RigOptions(clock=clock, before=take_time, slice_s=0.1))
    await rig.policy.warm_up()
    return rig


def reserve(rig: Rig, deadline: float | None) -> None:
    """Reserves a place and gives it up at once. Raises where a request would be refused."""
    with rig.policy.reserve(deadline):
        pass


async def test_a_plan_that_would_be_late_is_refused_before_any_work(slow_rig: Rig, clock: ManualClock) -> None:
    slow_rig.admission.register(Demand("other", Work(3.0), Work(3.0)), clock.now + 4.0)
    calls = len(slow_rig.backend.calls)
    with pytest.raises(Overloaded) as planned:
        await slow_rig.policy.plan(first(), clock.now + 2.0)
    with pytest.raises(Overloaded) as reserved:
        reserve(slow_rig, clock.now + 2.0)
    for refused in (planned, reserved):
        assert refused.value.predicted_s is not None
        assert refused.value.retry_after_s > 0
    assert len(slow_rig.backend.calls) == calls
    assert slow_rig.policy.plans_in_flight == 0
    reserve(slow_rig, None)
    reserve(slow_rig, clock.now + 60.0)
    clock.now += 30.0  # the refused robots are no longer expected to ask again
    assert (await slow_rig.policy.plan(first(), clock.now + 60.0)).receipt.deadline is DeadlineResult.MET


async def test_time_is_kept_for_a_request_only_while_it_is_read(slow_rig: Rig, clock: ManualClock) -> None:
    """Otherwise all requests that come at once are let in, and most are refused after their images are decoded."""
    admission = slow_rig.admission
    with slow_rig.policy.reserve(clock.now + 1.5) as permit:
        assert admission.remaining_s == pytest.approx(1.0, rel=0.6)
        with pytest.raises(Overloaded):
            reserve(slow_rig, clock.now + 1.5)
        result = await slow_rig.policy.plan(first(), clock.now + 1.9, permit)
        assert result.receipt.deadline is DeadlineResult.MET_DEGRADED
        assert admission.remaining_s == 0.0
    with slow_rig.policy.reserve(clock.now + 9.0) as permit:
        permit.release()
        permit.release()
        assert admission.remaining_s == 0.0
    with pytest.raises(ZeroDivisionError), slow_rig.policy.reserve(clock.now + 9.0):
        raise ZeroDivisionError
    assert admission.remaining_s == 0.0


async def test_a_retry_that_joins_a_plan_releases_its_own_place(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    go_on = asyncio.Event()

    async def hold(verb: str) -> None:
        await go_on.wait()

    rig.backend.before = hold
    request = follow(opened, 2, sequence=1)
    running = asyncio.ensure_future(rig.policy.plan(request))
    await yield_to_loop()
    running_s = rig.admission.remaining_s
    with rig.policy.reserve(time.monotonic() + 60) as permit:
        assert rig.admission.remaining_s > running_s
        retry = asyncio.ensure_future(rig.policy.plan(request, None, permit))
        await yield_to_loop(1)
        assert rig.admission.remaining_s == running_s
        go_on.set()
        assert await retry is await running


async def test_a_request_that_is_read_slowly_loses_its_time(slow_rig: Rig, clock: ManualClock) -> None:
    with slow_rig.policy.reserve(clock.now + 9.0):
        assert slow_rig.admission.remaining_s > 0
        await asyncio.sleep(1.5 * PERMIT_S)
        assert slow_rig.admission.remaining_s == 0.0


async def test_running_plans_and_requests_being_read_share_the_places(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(max_plans=1))
    running = asyncio.ensure_future(rig.policy.plan(first()))
    await yield_to_loop(2)
    with pytest.raises(Overloaded, match="the limit of 1 plans"):
        reserve(rig, None)
    await running
    with rig.policy.reserve(None) as permit:
        with pytest.raises(Overloaded, match="the limit of 1 plans"):
            reserve(rig, None)
        await rig.policy.plan(first(), None, permit)
        reserve(rig, None)
    reserve(rig, None)
    rig.policy.warm = False
    with pytest.raises(NotReady):
        reserve(rig, None)


async def test_more_plans_than_places_are_refused_at_once(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(max_plans=2))
    running = [asyncio.ensure_future(rig.policy.plan(first(seed))) for seed in range(2)]
    await yield_to_loop(2)
    with pytest.raises(Overloaded, match="the limit of 2 plans") as refused:
        await rig.policy.plan(first(9))
    assert refused.value.retry_after_s > 0
    await asyncio.gather(*running)
