"""What bounds the plans under way: predicted time, a number of plans, and the bytes that their requests hold."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.clock import yield_to_loop
from tests.planning.rig import MakeRig, Rig, RigOptions
from tests.policy.requests import SPEC, first
from wavserve.app.settings import Settings
from wavserve.core.errors import Overloaded
from wavserve.core.types import DeadlineResult

FRAME_BYTES = sum(camera.height * camera.width * 3 for camera in SPEC.cameras)
DEFAULT = Settings().limits.max_concurrent_plans


async def test_a_seventeenth_robot_with_a_loose_deadline_gets_its_plan(make_rig: MakeRig) -> None:
    """Predicted time decides, not the number of robots."""
    go_on = asyncio.Event()

    async def hold(verb: str) -> None:
        await go_on.wait()

    rig = await make_rig(RigOptions(max_plans=DEFAULT, before=hold))
    running = [asyncio.ensure_future(rig.policy.plan(first(seed))) for seed in range(16)]
    await yield_to_loop()
    with rig.policy.reserve(time.monotonic() + 600.0) as permit:
        seventeenth = asyncio.ensure_future(rig.policy.plan(first(17), time.monotonic() + 600.0, permit))
        await yield_to_loop()
        go_on.set()
        assert (await seventeenth).receipt.deadline is DeadlineResult.MET
    await asyncio.gather(*running)


async def test_as_many_plans_as_the_default_allows_run_at_once_and_all_are_answered(make_rig: MakeRig) -> None:
    rig = await make_rig(RigOptions(max_plans=DEFAULT, slots=32))
    deadlines = [None, time.monotonic() + 600.0]
    plans = [asyncio.ensure_future(rig.policy.plan(first(seed), deadlines[seed % 2])) for seed in range(DEFAULT)]
    await yield_to_loop(1)
    assert rig.policy.plans_in_flight == DEFAULT == 256
    with pytest.raises(Overloaded, match="the limit of 256 plans"):
        await rig.policy.plan(first(DEFAULT))
    answers = await asyncio.gather(*plans)
    assert len({answer.session_id for answer in answers}) == DEFAULT
    assert rig.backend.book.used == 0


@pytest.fixture
async def small_rig(make_rig: MakeRig) -> Rig:
    """A rig that may hold the bytes of two requests of 1,000 bytes."""
    return await make_rig(RigOptions(max_bytes=2 * (1000 + FRAME_BYTES)))


async def test_requests_hold_their_bytes_until_they_are_answered(small_rig: Rig) -> None:
    reserve = small_rig.policy.reserve
    with reserve(None, 1000) as one, reserve(None, 1000) as other:
        one.take_bytes(1000)
        one.release()  # its plan has a place of its own, and the body is still held
        other.take_bytes(999)
        with pytest.raises(Overloaded, match="bytes") as refused, reserve(None, 2):
            pass
        assert refused.value.retry_after_s > 0
        other.take_bytes(1)
    with reserve(None, 1000):
        pass


async def test_a_body_of_unstated_size_is_refused_when_it_has_grown_too_large(small_rig: Rig) -> None:
    with small_rig.policy.reserve(None) as one, small_rig.policy.reserve(None) as other:
        one.take_bytes(1000)
        other.take_bytes(1000)
        with pytest.raises(Overloaded, match="bytes"):
            other.take_bytes(1)


async def test_a_stated_size_alone_keeps_nobody_out(small_rig: Rig) -> None:
    """Only bytes that have arrived are held, so nobody can take the room of others with a header."""
    with small_rig.policy.reserve(None, 1000), small_rig.policy.reserve(None, 1000):
        pass
    with small_rig.policy.reserve(None, 1500) as slow, small_rig.policy.reserve(None, 1000) as quick:
        quick.take_bytes(1000)
        slow.take_bytes(10)


async def test_a_lone_request_is_taken_whatever_its_size(small_rig: Rig) -> None:
    with small_rig.policy.reserve(None, 100_000) as permit:
        permit.take_bytes(100_000)
        with pytest.raises(Overloaded), small_rig.policy.reserve(None, 1):
            pass


async def test_the_retry_time_of_a_refusal_counts_busy_devices_alone(make_rig: MakeRig) -> None:
    """A request is read, and no plan runs on any device: the retry time is the shortest."""
    rig = await make_rig(RigOptions(max_plans=1))
    with rig.policy.reserve(None), pytest.raises(Overloaded) as refused, rig.policy.reserve(None):
        pass
    assert 0 < refused.value.retry_after_s < 1
