"""The commit of a plan is the one judge of its deadline: an answer and the session always agree.

An answered plan has advanced its session, and an error has not. A retry resolves an error whose outcome is unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.clock import ManualClock, yield_to_loop
from tests.planning.rig import MakeRig, Rig, RigOptions
from tests.policy.requests import first, follow
from tests.policy.stores import RemoteStore
from wavserve.core.errors import DeadlineExceeded, WavserveError
from wavserve.core.messages import ActionChunk
from wavserve.core.types import PlanRequest
from wavserve.policy.sessions import MemorySessions, Session


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def taking(clock: ManualClock, seconds: float) -> Callable[[], Awaitable[None]]:
    """A step of the store that takes this long."""

    async def take() -> None:
        clock.now += seconds

    return take


class Remote:
    """A rig whose store a test holds up."""

    store: RemoteStore

    def __init__(self, make_rig: MakeRig) -> None:
        self._make_rig = make_rig

    async def rig(self, options: RigOptions) -> Rig:
        def wrap(sessions: MemorySessions) -> RemoteStore:
            self.store = RemoteStore(sessions)
            return self.store

        return await self._make_rig(replace(options, store=wrap))


@pytest.fixture
def remote(make_rig: MakeRig) -> Remote:
    return Remote(make_rig)


async def advanced_to(rig: Rig, opened: ActionChunk) -> int:
    """The last sequence number that a session committed."""
    session = await rig.sessions.load(opened.session_id)
    assert session is not None
    return session.last_sequence


async def test_a_commit_that_takes_time_within_the_deadline_leaves_less_slack(
    remote: Remote, clock: ManualClock
) -> None:
    rig = await remote.rig(RigOptions(clock=clock))

    remote.store.answer = taking(clock, 2.0)  # type: ignore[method-assign]
    chunk = await rig.policy.plan(first(), clock.now + 5.0)
    assert chunk.receipt.slack_s == pytest.approx(3.0)


async def test_a_commit_that_arrives_after_the_deadline_is_an_error_and_changes_nothing(
    remote: Remote, clock: ManualClock
) -> None:
    rig = await remote.rig(RigOptions(clock=clock))
    opened = await rig.policy.plan(first())

    remote.store.arrive = taking(clock, 10.0)  # type: ignore[method-assign]
    with pytest.raises(DeadlineExceeded) as error:
        await rig.policy.plan(follow(opened, 2, sequence=1), clock.now + 5.0)
    assert error.value.missed is not None
    assert error.value.missed.slack_ms == -5000.0
    assert await advanced_to(rig, opened) == 0


async def test_a_plan_that_was_committed_in_time_is_answered_although_the_store_answers_late(
    remote: Remote, clock: ManualClock
) -> None:
    rig = await remote.rig(RigOptions(clock=clock))
    opened = await rig.policy.plan(first())

    remote.store.answer = taking(clock, 10.0)  # type: ignore[method-assign]
    chunk = await rig.policy.plan(follow(opened, 2, sequence=1), clock.now + 5.0)
    assert (chunk.receipt.deadline.value, chunk.receipt.slack_s) == ("late", -5.0)
    assert await advanced_to(rig, opened) == 1


async def test_a_plan_that_was_committed_in_time_is_answered_although_the_loop_was_held_up(
    make_rig: MakeRig, clock: ManualClock
) -> None:
    async def hold_up_the_loop(request: PlanRequest, before: Session, result: ActionChunk) -> None:
        clock.now += 10.0  # runs after the plan is made and before its caller wakes

    rig = await make_rig(RigOptions(clock=clock, keep=hold_up_the_loop))
    chunk = await rig.policy.plan(first(), clock.now + 5.0)
    assert (chunk.receipt.deadline.value, chunk.receipt.slack_s) == ("late", -5.0)
    assert await advanced_to(rig, chunk) == 0


async def test_a_deadline_that_passes_during_the_commit_waits_for_its_outcome(remote: Remote) -> None:
    rig = await remote.rig(RigOptions())
    opened, go_on = await rig.policy.plan(first()), asyncio.Event()
    remote.store.answer = go_on.wait  # type: ignore[assignment, method-assign]
    deadline = time.monotonic() + 0.3
    planning = asyncio.ensure_future(rig.policy.plan(follow(opened, 2, sequence=1), deadline))
    await asyncio.sleep(deadline + 0.05 - time.monotonic())
    assert not planning.done()
    go_on.set()
    chunk = await planning
    assert chunk.receipt.deadline.value == "late"
    assert await advanced_to(rig, opened) == 1


@pytest.mark.parametrize("stored", [True, False])
async def test_a_retry_resolves_a_commit_whose_outcome_is_unknown(remote: Remote, stored: bool) -> None:
    rig = await remote.rig(RigOptions())
    opened = await rig.policy.plan(first())

    async def break_off() -> None:
        raise ConnectionError("the network is gone")

    setattr(remote.store, "answer" if stored else "arrive", break_off)
    request = follow(opened, 2, sequence=1)
    with pytest.raises(WavserveError, match="send the same request again") as error:
        await rig.policy.plan(request)
    assert error.value.retryable
    before, calls = await rig.sessions.load(opened.session_id), len(rig.backend.calls)
    setattr(remote.store, "answer" if stored else "arrive", RemoteStore(rig.sessions).answer)
    answer = await rig.policy.plan(request)
    assert answer.sequence == await advanced_to(rig, opened) == 1
    assert (len(rig.backend.calls) == calls) is stored
    assert (await rig.sessions.load(opened.session_id) is before) is stored


async def test_a_commit_that_lands_after_its_retry_began_is_the_answer_of_the_retry(remote: Remote) -> None:
    """The commit of the retry finds the session changed, by its own content."""
    rig = await remote.rig(RigOptions())
    opened = await rig.policy.plan(first())
    request = follow(opened, 2, sequence=1)
    plain = remote.store.arrive

    async def be_overtaken() -> None:
        remote.store.arrive = plain  # type: ignore[method-assign]
        other = await overtaking.policy.plan(request)
        overtaken.append(other)

    overtaken: list[ActionChunk] = []
    overtaking = await remote._make_rig(RigOptions(store=lambda _: rig.sessions))
    remote.store.arrive = be_overtaken  # type: ignore[method-assign]
    answer = await rig.policy.plan(request)
    assert answer.chunk_id == overtaken[0].chunk_id
    np.testing.assert_array_equal(answer.actions, overtaken[0].actions)


async def test_a_caller_that_leaves_during_the_commit_does_not_interrupt_it(remote: Remote) -> None:
    rig = await remote.rig(RigOptions())
    opened, go_on = await rig.policy.plan(first()), asyncio.Event()
    remote.store.began.clear()
    remote.store.arrive = go_on.wait  # type: ignore[assignment, method-assign]
    request = follow(opened, 2, sequence=1)
    leaving = asyncio.ensure_future(rig.policy.plan(request))
    await remote.store.began.wait()
    leaving.cancel()
    await yield_to_loop()
    assert leaving.cancelled()
    calls = len(rig.backend.calls)
    retry = asyncio.ensure_future(rig.policy.plan(request))
    await yield_to_loop()
    go_on.set()
    assert (await retry).sequence == await advanced_to(rig, opened) == 1
    assert len(rig.backend.calls) == calls
    await yield_to_loop()
    assert rig.policy.plans_in_flight == 0


async def test_a_drain_waits_for_a_commit_and_its_caller_is_answered(remote: Remote) -> None:
    rig = await remote.rig(RigOptions())
    opened, go_on = await rig.policy.plan(first()), asyncio.Event()
    remote.store.began.clear()
    remote.store.arrive = go_on.wait  # type: ignore[assignment, method-assign]
    running = asyncio.ensure_future(rig.policy.plan(follow(opened, 2, sequence=1)))
    await remote.store.began.wait()
    draining = asyncio.ensure_future(rig.policy.drain(timeout_s=0.01))
    await asyncio.sleep(0.1)
    assert not draining.done()
    go_on.set()
    await draining
    assert (await running).sequence == await advanced_to(rig, opened) == 1


async def test_a_retry_is_judged_by_its_own_deadline(rig: Rig) -> None:
    now = time.monotonic()
    opened = await rig.policy.plan(first(), now + 1000)
    request = follow(opened, 2, sequence=1)
    answer = await rig.policy.plan(request, now + 1000)
    again = await rig.policy.plan(request, now + 2000)
    assert answer.receipt.slack_s is not None
    assert again.receipt.slack_s is not None
    assert answer.receipt.slack_s < 1000 < again.receipt.slack_s < 2000
    assert (await rig.policy.plan(request)).receipt.deadline.value == "none"


async def test_a_longer_deadline_gets_a_plan_although_the_commit_of_the_joined_one_was_too_late(
    remote: Remote, clock: ManualClock
) -> None:
    rig = await remote.rig(RigOptions(clock=clock))
    opened, go_on = await rig.policy.plan(first()), asyncio.Event()
    remote.store.began.clear()
    remote.store.arrive = go_on.wait  # type: ignore[assignment, method-assign]
    request = follow(opened, 2, sequence=1)
    hurried = asyncio.ensure_future(rig.policy.plan(request, clock.now + 5.0))
    await remote.store.began.wait()
    patient = asyncio.ensure_future(rig.policy.plan(request, clock.now + 50.0))
    await yield_to_loop()
    clock.now += 10.0
    go_on.set()
    with pytest.raises(DeadlineExceeded):
        await hurried
    assert (await patient).receipt.slack_s == pytest.approx(40.0)
    assert await advanced_to(rig, opened) == 1


@pytest.mark.parametrize("seed", range(30))
async def test_answers_and_sessions_agree_however_the_commit_goes(
    remote: Remote, clock: ManualClock, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rig = await remote.rig(RigOptions(clock=clock))
    opened = await rig.policy.plan(first())

    async def disturb() -> None:
        await yield_to_loop(int(rng.integers(4)))
        clock.now += float(rng.integers(3))
        if rng.random() < 0.15:
            raise ConnectionError

    remote.store.arrive = remote.store.answer = disturb  # type: ignore[method-assign]
    for sequence in range(1, 8):
        request, before = follow(opened, sequence, sequence=sequence), await advanced_to(rig, opened)
        planning = asyncio.ensure_future(rig.policy.plan(request, clock.now + 2.0))
        if rng.random() < 0.3:
            await yield_to_loop(int(rng.integers(60)))
            planning.cancel()
        (outcome,) = await asyncio.gather(planning, return_exceptions=True)
        if isinstance(outcome, ActionChunk):
            assert await advanced_to(rig, opened) == sequence
            slack_s = outcome.receipt.slack_s
            assert slack_s is not None
            assert (outcome.receipt.deadline.value == "late") is (slack_s < 0)
        elif isinstance(outcome, DeadlineExceeded):
            assert await advanced_to(rig, opened) == before
        while await advanced_to(rig, opened) != sequence:  # the retry of whatever happened
            await asyncio.gather(rig.policy.plan(request), return_exceptions=True)
        await yield_to_loop()
        assert rig.policy.plans_in_flight == 0
