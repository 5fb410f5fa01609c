"""A full arena: groups wait for slots, but not forever. Other processes may hold slots and never free them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from tests.clock import ManualClock
from tests.scheduling.echo import Echo, group, limits, submit
from tests.scheduling.test_batcher_stuck import judge
from wavserve.core.errors import ArenaFull
from wavserve.core.types import Tensors
from wavserve.core.verbs import GroupStatus
from wavserve.scheduling.arena_slots import TOLD_AFTER_S
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.costs import Costs

MAX_WAIT_S = 30.0


class FullArena(Echo):
    """An `Echo` whose arena has no slot free while `full`."""

    def __init__(self, gated: bool = False) -> None:
        super().__init__(gated)
        self.full = True

    async def run(self, verb: str, inputs: Tensors, deadline: float = 0.0) -> Tensors:
        is_refused = self.full and verb == "imagine"
        outputs = await super().run(verb, inputs, deadline)
        return outputs | {"status": outputs["status"] + GroupStatus.ARENA_FULL} if is_refused else outputs


@pytest.fixture
def backend() -> FullArena:
    return FullArena()


@pytest.fixture
async def batcher(backend: FullArena, clock: ManualClock):  # type: ignore[no-untyped-def]
    batcher = Batcher(backend, replace(limits(), max_arena_wait_s=MAX_WAIT_S), Costs(clock), clock=clock)
    batcher.start()
    yield batcher
    await batcher.close()


async def test_a_group_that_waits_too_long_for_slots_gets_an_error(
    batcher: Batcher, backend: FullArena, caplog: pytest.LogCaptureFixture
) -> None:
    [answer] = await submit(batcher, group(1, "imagine"))
    judge(batcher, MAX_WAIT_S - 0.5)
    assert not answer.done()
    judge(batcher, 1.0)
    async with asyncio.timeout(10):
        with pytest.raises(ArenaFull, match=r"no slots of the feature arena within 30 s") as caught:
            await answer
    assert caught.value.retryable
    assert [record.levelno for record in caplog.records] == [logging.WARNING], "told once"
    backend.full = False
    async with asyncio.timeout(10):
        assert (await batcher.run(group(2, "imagine")))["x"] == 2, "others are served as soon as slots are free"


async def test_a_group_that_the_arena_refuses_again_and_again_keeps_its_first_moment(
    batcher: Batcher, backend: FullArena
) -> None:
    [answer] = await submit(batcher, group(1, "imagine"))
    for _ in range(round(MAX_WAIT_S)):
        judge(batcher, 1.0)
        await asyncio.sleep(0.003)  # it is tried again
    assert len(backend.calls) > 5
    judge(batcher, 1.0)
    assert isinstance((await asyncio.gather(answer, return_exceptions=True))[0], ArenaFull)


async def test_a_group_gets_its_error_also_while_the_slots_belong_to_plans_of_this_process(clock: ManualClock) -> None:
    """Nothing frees them here, so the arena is not even tried again."""
    backend = FullArena()
    batcher = Batcher(backend, replace(limits(), max_arena_wait_s=MAX_WAIT_S), Costs(clock), clock=clock)
    batcher.start()
    backend.full = False
    await batcher.run(group(1, "imagine"))
    backend.full = True
    [answer] = await submit(batcher, group(2, "imagine"))
    judge(batcher, MAX_WAIT_S + 1)
    assert isinstance((await asyncio.gather(answer, return_exceptions=True))[0], ArenaFull)
    await batcher.close()


async def test_slots_that_come_after_the_error_are_freed(clock: ManualClock) -> None:
    backend = FullArena(gated=True)
    batcher = Batcher(backend, replace(limits(), max_arena_wait_s=MAX_WAIT_S), Costs(clock), clock=clock)
    batcher.start()
    [answer] = await submit(batcher, group(1, "imagine"))
    backend.step()
    while len(backend.calls) < 2:
        backend.full = False
        await asyncio.sleep(0.003)
    judge(batcher, MAX_WAIT_S + 1)
    assert isinstance((await asyncio.gather(answer, return_exceptions=True))[0], ArenaFull)
    backend.step(9)
    await submit(batcher)
    assert backend.calls[-1] == ("release", [1])
    assert batcher.slots_held == 0
    await batcher.close()


async def test_a_wait_is_told_once_until_slots_come(
    batcher: Batcher, backend: FullArena, caplog: pytest.LogCaptureFixture
) -> None:
    for times in (1, 2):
        backend.full = True
        answers = await submit(batcher, group(1, "imagine"), group(2, "imagine", flow_steps=1))
        judge(batcher, TOLD_AFTER_S - 0.5)
        assert len(caplog.records) == times - 1
        judge(batcher, TOLD_AFTER_S)
        assert len(caplog.records) == times
        backend.full = False
        async with asyncio.timeout(10):
            for handles in [each["handles"] for each in await asyncio.gather(*answers)]:
                batcher.discard(handles)
                await submit(batcher)
