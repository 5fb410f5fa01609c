"""Frame memory by the paper's rule, and the session store: commits, expiry and room."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from tests.clock import ManualClock
from wavserve.core.errors import Overloaded
from wavserve.policy.sessions import CommitResult, FrameMemory, MemorySessions, Session


def frame(number: int) -> np.ndarray:
    return np.full((1, 1, 1, 1), number, np.float32)


def numbers(memory: FrameMemory) -> list[int]:
    return memory.frames.reshape(-1).astype(int).tolist()


def test_the_first_observation_fills_every_frame() -> None:
    assert numbers(FrameMemory.begin(frame(1), 4, threshold=1)) == [1, 1, 1, 1]


def test_threshold_one_keeps_every_frame_that_follows_an_executed_step() -> None:
    memory = FrameMemory.begin(frame(1), 4, 1)
    for number in (2, 3, 4, 5):
        memory = memory.observe(frame(number), executed_steps=8, threshold=1)
    assert numbers(memory) == [2, 3, 4, 5]


def test_an_observation_without_an_executed_step_replaces_the_newest_frame() -> None:
    memory = FrameMemory.begin(frame(1), 4, 1).observe(frame(2), 0, 1).observe(frame(3), 0, 1)
    assert numbers(memory) == [1, 1, 1, 3]


def test_a_higher_threshold_counts_executed_steps() -> None:
    """The count begins one short of the threshold, as in the released code: the first executed step keeps the first
    frame."""
    memory = FrameMemory.begin(frame(1), 4, 10)
    memory = memory.observe(frame(2), 4, 10)
    assert (numbers(memory), memory.steps) == ([1, 1, 1, 2], 0)
    memory = memory.observe(frame(3), 4, 10)
    assert (numbers(memory), memory.steps) == ([1, 1, 1, 3], 4)
    memory = memory.observe(frame(4), 6, 10)
    assert (numbers(memory), memory.steps) == ([1, 1, 3, 4], 0)


async def test_commit_is_compare_and_set() -> None:
    store = MemorySessions(10.0, 4)
    session = Session.fresh("p")
    assert await store.commit(session) is CommitResult.COMMITTED
    assert await store.commit(session) is CommitResult.CHANGED  # it is stored already
    stored = await store.load(session.id)
    assert stored is not None
    assert stored.version == 1
    assert await store.commit(replace(stored, last_sequence=7)) is CommitResult.COMMITTED
    assert await store.commit(stored) is CommitResult.CHANGED


async def test_a_commit_after_its_deadline_stores_nothing() -> None:
    clock = ManualClock()
    store, session = MemorySessions(10.0, 4, clock), Session.fresh("p")
    assert await store.commit(session, clock.now - 0.001) is CommitResult.TOO_LATE
    assert await store.load(session.id) is None
    assert await store.commit(session, clock.now) is CommitResult.COMMITTED


async def test_a_session_expires_when_it_is_not_used() -> None:
    clock = ManualClock()
    store = MemorySessions(10.0, 4, clock)
    used, unused = Session.fresh("p"), Session.fresh("p")
    for session in (used, unused):
        await store.commit(session)
    clock.now += 6
    assert await store.load(used.id) is not None
    clock.now += 6
    assert await store.load(used.id) is not None
    assert await store.load(unused.id) is None
    assert len(store) == 1


async def test_a_store_full_of_continued_sessions_refuses_new_ones() -> None:
    clock = ManualClock()
    store = MemorySessions(10.0, 1, clock)
    continued = Session.fresh("p")
    await store.commit(continued)
    await store.commit(replace(continued, version=1))
    clock.now += 4
    with pytest.raises(Overloaded) as refused:
        await store.commit(Session.fresh("p"))
    assert refused.value.retry_after_s == pytest.approx(6.0)
    assert await store.load(continued.id) is not None


async def test_a_commit_to_an_expired_session_is_refused() -> None:
    clock = ManualClock()
    store = MemorySessions(10.0, 4, clock)
    session = Session.fresh("p")
    await store.commit(session)
    stored = await store.load(session.id)
    clock.now += 11
    assert stored is not None
    assert await store.commit(stored) is CommitResult.CHANGED


async def test_a_full_store_evicts_sessions_that_were_never_continued() -> None:
    """One-off requests must neither lock robots out nor evict a robot at work."""
    store = MemorySessions(10.0, 3)
    robot, *others = (Session.fresh("p") for _ in range(4))
    await store.commit(robot)
    await store.commit(replace(robot, version=1))
    for other in others:
        await store.commit(other)
    stored = [await store.load(session.id) is not None for session in (robot, *others)]
    assert stored == [True, False, True, True]


async def test_a_robot_that_starts_again_and_again_locks_nobody_out() -> None:
    """Each start opens a session and plans a few times. No stream has the sessions of before any more."""
    store = MemorySessions(10.0, 3)
    other = await _streamed(store, "other", num_plans=2)
    starts = [await _streamed(store, "arm", num_plans=2) for _ in range(5)]
    assert [await store.load(session.id) is not None for session in (other, *starts)] == [True, *[False] * 4, True]


async def test_a_full_store_has_room_for_a_robot_that_is_in_it() -> None:
    store = MemorySessions(10.0, 2)
    for robot_id in ("arm", "other"):
        await _streamed(store, robot_id, num_plans=2)
    await store.ensure_room("arm")
    await _streamed(store, "arm", num_plans=2)
    with pytest.raises(Overloaded):
        await store.ensure_room("third")


@pytest.mark.parametrize(("num_plans", "evicted"), [(0, True), (1, True), (2, False)])
async def test_epochs_are_no_plans(num_plans: int, evicted: bool) -> None:
    store = MemorySessions(10.0, 1)
    await _streamed(store, "arm", num_plans)
    with nullcontext() if evicted else pytest.raises(Overloaded):
        await store.ensure_room()


async def _streamed(store: MemorySessions, robot_id: str, num_plans: int) -> Session:
    """A stored session that a stream has opened, resumed once, and planned in."""
    session = replace(Session.fresh("p"), robot_id=robot_id)
    for epoch in (1, 2, *[2] * num_plans):
        await store.commit(replace(session, epoch=epoch))
        stored = await store.load(session.id)
        assert stored is not None
        session = stored
    return session


async def test_a_session_that_ended_is_unknown_and_its_place_is_free() -> None:
    sessions = MemorySessions(ttl_s=60, max_sessions=1)
    session = Session.fresh("digest")
    for version in range(3):  # more than one plan: it is not evicted
        assert await sessions.commit(replace(session, version=version)) is CommitResult.COMMITTED
    with pytest.raises(Overloaded):
        await sessions.ensure_room()
    await sessions.end(session.id)
    await sessions.end("unknown")
    await sessions.ensure_room()
    assert await sessions.load(session.id) is None
