"""The batcher's order: which group goes first, and how many calls the backend has at a time."""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.clock import yield_to_loop
from tests.scheduling.echo import Echo, StartBatcher, due, group, limits, submit


async def test_a_lone_group_leaves_at_once(start_batcher: StartBatcher, echo: Echo) -> None:
    batcher = await start_batcher(echo)
    outputs = await batcher.run(group(7))
    assert outputs["x"] == 7
    assert "status" not in outputs
    assert echo.calls == [("denoise", [7])]


async def test_earliest_deadline_first_then_first_come(start_batcher: StartBatcher, gated: Echo) -> None:
    batcher = await start_batcher(gated, limits(rows=1))
    answers = await submit(batcher, group(0))  # it runs; the others queue behind it
    deadlines = [math.inf, 30.0, 10.0, math.inf, 20.0]
    answers += await submit(batcher, *(group(i, ticket=due(moment)) for i, moment in enumerate(deadlines, start=1)))
    gated.step(9)
    await asyncio.gather(*answers)
    assert gated.batches == [[0], [3], [5], [2], [1], [4]]


async def test_a_plan_frees_memory_before_it_fills_more_and_a_more_urgent_plan_goes_first(
    start_batcher: StartBatcher, gated: Echo
) -> None:
    batcher = await start_batcher(gated, limits(rows=1))
    answers = await submit(batcher, group(0))
    plan, urgent = due(9.0), due(1.0)
    answers += await submit(
        batcher, group(1, "imagine", plan), group(2, "value_features", plan), group(3, "imagine", urgent)
    )
    gated.step(9)
    await asyncio.gather(*answers)
    assert gated.calls == [("denoise", [0]), ("imagine", [3]), ("value_features", [2]), ("imagine", [1])]


async def test_no_call_waits_at_the_backend_behind_a_more_urgent_plan(start_batcher: StartBatcher, gated: Echo) -> None:
    """The urgent plan's next call comes as soon as it is answered and must find the backend free. Its own calls may
    wait there."""
    batcher = await start_batcher(gated, limits(rows=1, depth=2))
    urgent, other = due(1.0), due(9.0)
    [first] = await submit(batcher, group(0, ticket=urgent))
    answers = await submit(batcher, *(group(i, ticket=other) for i in (1, 2)))
    assert gated.batches == [[0]]
    answers += await submit(batcher, group(3, ticket=urgent))
    assert gated.batches == [[0], [3]]

    async def next_call() -> None:
        await first
        await batcher.run(group(4, ticket=urgent))

    following = asyncio.ensure_future(next_call())
    gated.step()
    await yield_to_loop(30)
    assert gated.batches == [[0], [3], [4]]
    gated.step(9)
    await asyncio.gather(following, *answers)
    assert gated.batches == [[0], [3], [4], [1], [2]]


async def test_one_call_runs_and_one_waits_behind_it(start_batcher: StartBatcher, gated: Echo) -> None:
    batcher = await start_batcher(gated, limits(rows=1, depth=2))
    answers = await submit(batcher, *map(group, range(9)))
    assert len(gated.calls) == 2
    gated.step(9)
    await asyncio.gather(*answers)


async def test_a_backend_with_two_workers_runs_two_plans_at_once(start_batcher: StartBatcher, gated: Echo) -> None:
    batcher = await start_batcher(gated, limits(rows=1, depth=2, workers=2))
    answers = await submit(batcher, *(group(i, ticket=due(float(i))) for i in range(3)))
    assert gated.batches == [[0], [1]]
    gated.step(9)
    await asyncio.gather(*answers)


@pytest.mark.parametrize(("depth", "ready"), [(2, []), (3, [("value_features", [1])])])
async def test_an_idle_model_runs_a_less_urgent_call_while_another_model_is_busy(
    start_batcher: StartBatcher, gated: Echo, depth: int, ready: list[tuple[str, list[int]]]
) -> None:
    """When each model runs one call at a time. The busy model's next call stays in the queue, or waits at the backend
    where the depth allows it."""
    batcher = await start_batcher(gated, limits(rows=1, depth=depth, workers=2, one_call_per_model=True))
    verbs = ["value_features", "value_features", "value_features", "denoise", "denoise"]
    answers = await submit(batcher, *(group(i, verb, due(0.0)) for i, verb in enumerate(verbs)))
    assert sorted(gated.calls) == sorted([("value_features", [0]), ("denoise", [3]), *ready])
    gated.step(9)
    await asyncio.gather(*answers)
