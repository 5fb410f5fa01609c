"""The policy and a robot's session: frame memory, retries, sequence numbers, resets. A refused plan changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.clock import yield_to_loop
from tests.planning.rig import Rig
from tests.policy.requests import first, follow
from wavserve.core.errors import BackendError, Overloaded, SequenceConflict, UnknownSession
from wavserve.core.types import PlanRequest
from wavserve.policy.digests import memory_digest


async def test_a_session_remembers_its_frames(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    later = await rig.policy.plan(follow(opened, 2, sequence=1, executed_steps=2))
    fresh = await rig.policy.plan(first(2, sequence=1))
    assert later.receipt.digests["memory"] != fresh.receipt.digests["memory"]
    assert not np.array_equal(later.actions, fresh.actions)


class NotedExecutor(ThreadPoolExecutor):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[object] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given.append(fn)
        return super().submit(fn, *args, **kwargs)


async def test_the_memory_is_hashed_on_a_thread(rig: Rig) -> None:
    executor = NotedExecutor()
    asyncio.get_running_loop().set_default_executor(executor)
    opened = await rig.policy.plan(first())
    await rig.policy.plan(follow(opened, 2, sequence=1, executed_steps=2))
    assert executor.given.count(memory_digest) == 2


async def test_a_reset_forgets_the_frames_and_keeps_the_sequence_number(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    await rig.policy.reset(opened.session_id)
    with pytest.raises(SequenceConflict):
        await rig.policy.plan(follow(opened))
    later = await rig.policy.plan(follow(opened, 2, sequence=1))
    fresh = await rig.policy.plan(first(2, sequence=1))
    np.testing.assert_array_equal(later.actions, fresh.actions)


async def test_a_retry_gets_the_first_answer(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    request = replace(follow(opened, 2, sequence=5), seed=None)
    answer = await rig.policy.plan(request)
    calls = len(rig.backend.calls)
    assert await rig.policy.plan(request) is answer
    assert len(rig.backend.calls) == calls


async def test_a_retry_joins_the_running_plan(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    request = follow(opened, 2, sequence=1)
    impatient = asyncio.ensure_future(rig.policy.plan(request))
    await yield_to_loop(3)
    retry = asyncio.ensure_future(rig.policy.plan(request))
    await yield_to_loop(3)
    impatient.cancel()
    answer = await retry
    assert answer.sequence == 1
    assert await rig.policy.plan(request) is answer


async def cancel_a_plan(rig: Rig, request: PlanRequest, pause: int) -> None:
    """Cancels a running plan and gives it `pause` turns of the event loop to end."""
    running = asyncio.ensure_future(rig.policy.plan(request))
    await yield_to_loop(5)
    running.cancel()
    await yield_to_loop(pause)


async def test_a_cancelled_plan_may_be_retried_at_once(rig: Rig) -> None:
    """The retry does not join what is left of the cancelled plan."""
    opened = await rig.policy.plan(first())
    request = follow(opened, 2, sequence=1)
    for pause in range(3):
        await cancel_a_plan(rig, request, pause)
        retry = asyncio.ensure_future(rig.policy.plan(request))
        await yield_to_loop(3)
        assert not retry.done()
        retry.cancel()
    await cancel_a_plan(rig, request, pause=3)
    assert (await rig.policy.plan(request)).sequence == 1


@pytest.mark.parametrize(("sequence", "seed", "expected"), [(4, 2, "more than 5"), (5, 3, "a number above 5")])
async def test_stale_and_reused_sequence_numbers_are_refused(rig: Rig, sequence: int, seed: int, expected: str) -> None:
    opened = await rig.policy.plan(first())
    await rig.policy.plan(follow(opened, 2, sequence=5))
    before = await rig.sessions.load(opened.session_id)
    with pytest.raises(SequenceConflict, match=expected) as refused:
        await rig.policy.plan(follow(opened, seed, sequence=sequence))
    assert refused.value.field == "sequence"
    assert await rig.sessions.load(opened.session_id) is before


async def test_a_session_has_one_plan_at_a_time(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    running = asyncio.ensure_future(rig.policy.plan(follow(opened, 2, sequence=1)))
    await yield_to_loop(3)
    with pytest.raises(SequenceConflict, match="sequence 1 is under way"):
        await rig.policy.plan(follow(opened, 3, sequence=2))
    assert (await running).sequence == 1


async def test_a_reset_refuses_the_running_plan(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    running = asyncio.ensure_future(rig.policy.plan(follow(opened, 2, sequence=1)))
    await yield_to_loop(5)
    await rig.policy.reset(opened.session_id)
    with pytest.raises(SequenceConflict, match="reset"):
        await running
    session = await rig.sessions.load(opened.session_id)
    assert session is not None
    assert session.memory is None


@pytest.mark.parametrize("session_id", ["nobody", ""])
async def test_unknown_sessions_are_refused(rig: Rig, session_id: str) -> None:
    if session_id:
        with pytest.raises(UnknownSession, match=repr(session_id)):
            await rig.policy.plan(first(session_id=session_id))
    with pytest.raises(UnknownSession):
        await rig.policy.reset(session_id)
    assert not rig.backend.calls


async def test_a_full_session_store_refuses_before_any_work(rig: Rig) -> None:
    for seed in range(4):
        opened = await rig.policy.plan(first(seed))
        await rig.policy.plan(follow(opened, seed, sequence=1))
    calls = len(rig.backend.calls)
    with pytest.raises(Overloaded, match="all 4 sessions"):
        await rig.policy.plan(first(9))
    assert len(rig.backend.calls) == calls


async def test_a_cancelled_caller_cancels_its_plan_and_leaves_the_session(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    before = await rig.sessions.load(opened.session_id)
    running = asyncio.ensure_future(rig.policy.plan(follow(opened, 2, sequence=1)))
    await yield_to_loop(5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await yield_to_loop(200)
    assert rig.policy.plans_in_flight == 0
    assert rig.backend.book.used == 0
    assert await rig.sessions.load(opened.session_id) is before


async def test_a_plan_that_failed_changes_nothing_and_may_be_retried(rig: Rig) -> None:
    opened = await rig.policy.plan(first())
    healthy = rig.backend.before

    async def fail(verb: str) -> None:
        if verb == "decode":
            raise BackendError("the model is gone")

    rig.backend.before = fail
    request = follow(opened, 2, sequence=1)
    with pytest.raises(BackendError, match="the model is gone"):
        await rig.policy.plan(request)
    rig.backend.before = healthy
    assert (await rig.policy.plan(request)).sequence == 1
