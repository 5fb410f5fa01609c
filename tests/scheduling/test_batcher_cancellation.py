"""The batcher when callers are cancelled: calls without a caller end, and arena slots without a reader are released."""

from __future__ import annotations

import asyncio

from tests.clock import yield_to_loop
from tests.scheduling.echo import Echo, StartBatcher, group, limits, submit


async def test_a_cancelled_group_leaves_the_queue(start_batcher: StartBatcher, gated: Echo) -> None:
    batcher = await start_batcher(gated, limits(rows=1))
    answers = await submit(batcher, *map(group, range(3)))
    answers[1].cancel()
    gated.step(9)
    assert await asyncio.gather(*answers, return_exceptions=True) != []
    assert batcher.queue_depth == 0
    assert gated.batches == [[0], [2]]


async def test_a_call_is_cancelled_when_its_last_caller_is_gone(start_batcher: StartBatcher, gated: Echo) -> None:
    """The next call does not wait for it."""
    batcher = await start_batcher(gated)
    [blocker] = await submit(batcher, group(9, flow_steps=1))
    answers = await submit(batcher, group(0), group(1))
    gated.step()
    await blocker
    await yield_to_loop(30)
    assert gated.calls[-1] == ("denoise", [0, 1])
    answers[0].cancel()
    await yield_to_loop(30)
    assert gated.cancelled == []
    answers[1].cancel()
    await yield_to_loop(30)
    assert gated.cancelled == [0, 1]
    gated.step()
    assert (await batcher.run(group(3)))["x"] == 3


async def test_slots_of_a_cancelled_caller_are_released_when_its_call_ends(
    start_batcher: StartBatcher, gated: Echo
) -> None:
    """The call is not cancelled: an answer that arrives after its cancellation would hold slots that nobody frees."""
    batcher = await start_batcher(gated)
    [imagining] = await submit(batcher, group(5, "imagine"))
    imagining.cancel()
    gated.step(2)
    await asyncio.gather(imagining, return_exceptions=True)
    await yield_to_loop(30)
    assert batcher.slots_held == 0
    assert gated.cancelled == []
    assert gated.calls == [("imagine", [5]), ("release", [5])]


async def test_slots_of_a_caller_that_is_cancelled_as_it_is_answered_are_released(
    start_batcher: StartBatcher, echo: Echo
) -> None:
    batcher = await start_batcher(echo)
    imagine = group(5, "imagine")
    imagining = asyncio.ensure_future(batcher.run(imagine))
    imagine.on_call = lambda queued_s, call_s: bool(imagining.cancel())  # it is answered, and its caller not yet awake
    await asyncio.gather(imagining, return_exceptions=True)
    assert imagining.cancelled()
    await yield_to_loop(30)
    assert batcher.slots_held == 0
    assert echo.calls == [("imagine", [5]), ("release", [5])]
