"""A call that stands still is given up after much longer than predicted; a slow or waiting one is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.clock import ManualClock
from tests.scheduling.echo import Echo, group, limits, submit
from wavserve.core.errors import CallStuck, ModelDown
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.costs import CallKind, Costs

HANG_S = 60.0


def judge(batcher: Batcher, seconds: float) -> None:
    """Lets `seconds` of awake time pass."""
    for _ in range(round(seconds * 10)):
        batcher.judge_calls(0.1)


@pytest.fixture
def stuck() -> list[str]:
    return []


@pytest.fixture
async def batcher(gated: Echo, clock: ManualClock, stuck: list[str]):  # type: ignore[no-untyped-def]
    costs = Costs(clock)
    for _ in range(20):
        costs.measured(CallKind("denoise"), 1, 0.1)
        costs.measured(CallKind("imagine"), 1, 1.0)
    batcher = Batcher(gated, replace(limits(rows=1, depth=2), hang_s=HANG_S), costs, clock=clock)
    batcher.on_stuck = stuck.append
    batcher.start()
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
