"""A call that stands still is given up after much longer than predicted. A slow, a waiting or a starved one is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.clock import ManualClock
from tests.computing import computing, stop
from tests.scheduling.echo import Echo, group, limits, submit
from wavserve.core.errors import CallStuck, ModelDown
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.costs import Costs
from wavserve.scheduling.stuck_calls import MIN_CALLS
from wavserve.system.processes import Process

HANG_S = 60.0
OLD, NEW = Process(2**22 + 1, 1), Process(2**22 + 2, 1)
"""processes that no machine has"""


def judge(batcher: Batcher, seconds: float) -> None:
    """Lets `seconds` of awake time pass."""
    for _ in range(round(seconds * 10)):
        batcher.judge_calls(0.1)


async def answered(
    batcher: Batcher, gated: Echo, clock: ManualClock, verb: str = "denoise", seconds: float = 0.1
) -> None:
    """A call that is answered after `seconds`."""
    [answer] = await submit(batcher, group(1, verb))
    clock.now += seconds
    gated.step()
    await answer


@pytest.fixture
def stuck() -> list[str]:
    return []


@pytest.fixture
async def batcher(gated: Echo, clock: ManualClock, stuck: list[str]):  # type: ignore[no-untyped-def]
    """A batcher that has made calls of `denoise` in 0.1 s each, and of `imagine` in 1 s."""
    batcher = Batcher(gated, replace(limits(rows=1, depth=2), hang_s=HANG_S), Costs(clock), clock=clock)
    batcher.on_stuck = stuck.append
    batcher.start()
    for verb, seconds in (("denoise", 0.1), ("imagine", 1.0)):
        for _ in range(20):
            await answered(batcher, gated, clock, verb, seconds)
    gated.calls.clear()
    yield batcher
    gated.step(9)
    await batcher.close()


async def test_a_call_that_stands_still_is_given_up_and_its_plan_told_at_once(
    batcher: Batcher, gated: Echo, stuck: list[str]
) -> None:
    [answer] = await submit(batcher, group(1))
    judge(batcher, 1.9)
    assert not stuck
    judge(batcher, 0.3)
    assert stuck == ["video_dit"]
    async with asyncio.timeout(10):
        with pytest.raises(
            CallStuck, match=r"video_dit: no answer to denoise for 2\.[01] s, predicted 0\.1 s"
        ) as caught:
            await answer
        await submit(batcher)
    assert caught.value.retryable
    assert not isinstance(caught.value, ModelDown), "its plan would wait for the repair"
    assert gated.cancelled == [1]


async def test_the_limit_follows_the_prediction_and_a_late_answer_frees_its_slots(
    batcher: Batcher, gated: Echo, stuck: list[str]
) -> None:
    [answer] = await submit(batcher, group(1, "imagine"))
    judge(batcher, 4.9)
    assert not stuck
    judge(batcher, 5.0)
    assert stuck == ["video_dit"]
    assert isinstance((await asyncio.gather(answer, return_exceptions=True))[0], CallStuck)
    assert not gated.cancelled, "its slots would leak"
    gated.step(9)
    await submit(batcher)
    assert gated.calls[-1] == ("release", [1])


async def test_a_call_that_waits_at_the_backend_is_not_stuck(batcher: Batcher, gated: Echo, stuck: list[str]) -> None:
    answers = await submit(batcher, group(1, "imagine"))
    answers += await submit(batcher, group(2))
    assert len(gated.calls) == 2
    judge(batcher, 4.5)
    assert not stuck
    gated.step(9)
    await asyncio.gather(*answers)


async def test_the_first_call_of_a_kind_may_take_as_long_as_the_ceiling(batcher: Batcher, stuck: list[str]) -> None:
    [answer] = await submit(batcher, group(1, "value_features"))
    judge(batcher, HANG_S - 0.5)
    assert not stuck
    judge(batcher, 1.0)
    assert stuck == ["value_dit"]
    assert isinstance((await asyncio.gather(answer, return_exceptions=True))[0], CallStuck)


async def test_the_first_calls_in_a_new_process_may_take_as_long_as_the_ceiling(
    batcher: Batcher, gated: Echo, clock: ManualClock, stuck: list[str]
) -> None:
    """What is known of their cost comes from the process before it."""
    batcher.stuck_calls.process_of = lambda model: NEW
    for _ in range(MIN_CALLS):
        [answer] = await submit(batcher, group(1))
        judge(batcher, HANG_S - 0.5)
        assert not stuck
        gated.step()
        await answer
    [answer] = await submit(batcher, group(1))
    judge(batcher, 2.2)
    assert stuck == ["video_dit"]
    await asyncio.gather(answer, return_exceptions=True)


async def test_a_call_is_not_judged_by_a_prediction_while_its_model_is_replaced(
    batcher: Batcher, gated: Echo, clock: ManualClock, stuck: list[str]
) -> None:
    """The process of a model that is down is not known. When the old one is back, its predictions count again."""
    process: Process | None = OLD
    batcher.stuck_calls.process_of = lambda model: process
    for _ in range(MIN_CALLS):
        await answered(batcher, gated, clock)
    [answer] = await submit(batcher, group(1))
    process = None
    judge(batcher, HANG_S - 0.5)
    assert not stuck
    process = OLD
    judge(batcher, 0.1)
    assert stuck == ["video_dit"]
    await asyncio.gather(answer, return_exceptions=True)


async def test_a_process_that_waits_for_a_processor_does_not_stand_still(
    batcher: Batcher, gated: Echo, clock: ManualClock, stuck: list[str]
) -> None:
    """The process computes all the time, and far more awake time passes than the processor time that it gets."""
    with computing() as process:
        batcher.stuck_calls.process_of = lambda model: process
        for _ in range(MIN_CALLS):
            await answered(batcher, gated, clock)
        [answer] = await submit(batcher, group(1))
        judge(batcher, HANG_S - 0.5)
        assert not stuck
        judge(batcher, 1.0)
        assert stuck == ["video_dit"], "the ceiling holds for it too"
        await asyncio.gather(answer, return_exceptions=True)
        [answer] = await submit(batcher, group(1))
        judge(batcher, 1.5)
        stop(process)
        judge(batcher, 1.0)
        assert stuck == ["video_dit"] * 2, "it stands still"
        await asyncio.gather(answer, return_exceptions=True)
