"""Frame memory by the paper's rule, and a store that neither mixes robots nor loses a commit silently."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from tests.planning.rig import ManualClock
from wavserve.core.errors import Overloaded
from wavserve.policy.sessions import FrameMemory, MemorySessions, Session


def frame(number: int) -> np.ndarray:
    return np.full((1, 1, 1, 1), number, np.float32)


def seen(memory: FrameMemory) -> list[int]:
    return memory.frames.reshape(-1).astype(int).tolist()


def test_the_first_observation_fills_every_frame() -> None:
    assert seen(FrameMemory.begin(frame(1), 4, threshold=1)) == [1, 1, 1, 1]


def test_threshold_one_keeps_every_frame_that_follows_a_step() -> None:
    memory = FrameMemory.begin(frame(1), 4, 1)
    for number in (2, 3, 4, 5):
        memory = memory.observe(frame(number), executed_steps=8, threshold=1)
    assert seen(memory) == [2, 3, 4, 5]


def test_no_step_executed_replaces_the_newest() -> None:
    memory = FrameMemory.begin(frame(1), 4, 1).observe(frame(2), 0, 1).observe(frame(3), 0, 1)
    assert seen(memory) == [1, 1, 1, 3]


def test_a_higher_threshold_counts_executed_steps() -> None:
    """Begun one short of the threshold, as the released code does: the first step taken keeps the first frame."""
    memory = FrameMemory.begin(frame(1), 4, 10)
    memory = memory.observe(frame(2), 4, 10)
    assert (seen(memory), memory.steps) == ([1, 1, 1, 2], 0)
    memory = memory.observe(frame(3), 4, 10)
    assert (seen(memory), memory.steps) == ([1, 1, 1, 3], 4)
    memory = memory.observe(frame(4), 6, 10)
    assert (seen(memory), memory.steps) == ([1, 1, 3, 4], 0)


def test_commit_is_compare_and_set() -> None:
    async def main() -> None:
        store = MemorySessions(10.0, 4)
        session = Session.fresh("p")
        assert await store.commit(session)
        assert not await store.commit(session)  # somebody stored it first
        stored = await store.load(session.id)
        assert stored is not None
        assert stored.version == 1
        assert await store.commit(replace(stored, last_sequence=7))
        assert not await store.commit(stored)

    asyncio.run(main())


def test_sessions_expire_when_unused_and_use_keeps_them() -> None:
    async def main() -> None:
        clock = ManualClock()
        store = MemorySessions(10.0, 4, clock)
        kept, lost = Session.fresh("p"), Session.fresh("p")
        for session in (kept, lost):
            await store.commit(session)
        clock.now += 6
        assert await store.load(kept.id) is not None
        clock.now += 6
        assert await store.load(kept.id) is not None
        assert await store.load(lost.id) is None
        assert len(store) == 1

    asyncio.run(main())


def test_a_full_store_refuses_new_sessions_and_keeps_the_old() -> None:
    async def main() -> None:
        clock = ManualClock()
        store = MemorySessions(10.0, 1, clock)
        first = Session.fresh("p")
        await store.commit(first)
        await store.commit(replace(first, version=1))
        clock.now += 4
        with pytest.raises(Overloaded) as refused:
            await store.commit(Session.fresh("p"))
        assert refused.value.retry_after_s == pytest.approx(6.0)
        assert await store.load(first.id) is not None

    asyncio.run(main())


def test_a_commit_to_a_session_that_expired_is_refused() -> None:
    async def main() -> None:
        clock = ManualClock()
        store = MemorySessions(10.0, 4, clock)
        session = Session.fresh("p")
        await store.commit(session)
        stored = await store.load(session.id)
        clock.now += 11
        assert stored is not None
        assert not await store.commit(stored)

    asyncio.run(main())


def test_a_full_store_drops_what_was_never_continued() -> None:
    """One-off requests must not lock robots out, nor push out a robot at work."""

    async def main() -> None:
        store = MemorySessions(10.0, 3)
        robot, *others = (Session.fresh("p") for _ in range(4))
        await store.commit(robot)
        await store.commit(replace(robot, version=1))
        for other in others:
            await store.commit(other)
        kept = [await store.load(session.id) is not None for session in (robot, *others)]
        assert kept == [True, False, True, True]

    asyncio.run(main())
