"""The batcher's calls: which groups share one, how long it may take, and what its plans are charged."""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.clock import ManualClock
from tests.scheduling.echo import Echo, StartBatcher, due, group, limits, submit
from wavserve.core.errors import StaleHandle
from wavserve.core.types import Tensors
from wavserve.scheduling.costs import Costs
from wavserve.scheduling.ledger import Ticket, Work


async def test_equal_signatures_share_a_call_up_to_max_rows(start_batcher: StartBatcher, gated: Echo) -> None:
    batcher = await start_batcher(gated)
    answers = await submit(batcher, group(0))
    answers += await submit(batcher, *map(group, range(1, 7)), group(9, flow_steps=2))
    gated.step(9)
    results = await asyncio.gather(*answers)
    assert [int(result["x"]) for result in results] == [0, 1, 2, 3, 4, 5, 6, 9]
    assert gated.batches == [[0], [1, 2, 3, 4], [5, 6], [9]]


async def test_instructions_are_encoded_alone(start_batcher: StartBatcher, gated: Echo) -> None:
    """A prompt that is too long must not fail the prompts of others."""
    batcher = await start_batcher(gated)
    answers = await submit(batcher, *(group(i, "encode_text") for i in range(3)))
    gated.step(3)
    await asyncio.gather(*answers)
    assert gated.batches == [[0], [1], [2]]


async def test_groups_of_a_lone_ticket_share_no_call(start_batcher: StartBatcher, gated: Echo) -> None:
    """Not with other plans, and not with each other."""
    batcher, lone = await start_batcher(gated), Ticket(alone=True)
    answers = await submit(batcher, group(0))
    answers += await submit(batcher, group(1), group(2, ticket=lone), group(3), group(4, ticket=lone), group(5))
    gated.step(9)
    await asyncio.gather(*answers)
    assert gated.batches == [[0], [1, 3, 5], [2], [4]]


async def test_a_call_is_joined_only_as_far_as_it_stays_short(start_batcher: StartBatcher, gated: Echo) -> None:
    """Whatever `max_rows` allows: here a row takes 10 ms, and a call should take at most 35 ms."""
    costs = Costs(lambda: 0.0)
    for rows in (1, 2, 4, 1, 2, 4) * 20:
        costs.measured(group(0).kind, rows, 0.01 * rows)
    batcher = await start_batcher(gated, limits(rows=16, slice_s=0.035), costs)
    answers = await submit(batcher, *map(group, range(8)))
    gated.step(9)
    await asyncio.gather(*answers)
    assert [len(x) for x in gated.batches] == [3, 3, 2]


async def test_a_call_ends_at_the_last_of_its_deadlines_unless_it_allocates(
    start_batcher: StartBatcher, gated: Echo
) -> None:
    """A call that allocates has no deadline: its slots would be lost."""
    batcher = await start_batcher(gated)
    answers = await submit(batcher, group(0))
    answers += await submit(batcher, *(group(i, ticket=due(float(i))) for i in (1, 2)), group(3, "imagine", due(3.0)))
    gated.step(9)
    await asyncio.gather(*answers)
    assert gated.calls == [("denoise", [0]), ("denoise", [1, 2]), ("imagine", [3])]
    assert gated.deadlines == [math.inf, 2.0, math.inf]


async def test_plans_are_charged_for_their_calls_and_the_cost_model_learns(
    start_batcher: StartBatcher, clock: ManualClock
) -> None:
    class Slow(Echo):
        async def run(self, verb: str, inputs: Tensors, deadline: float = 0.0) -> Tensors:
            clock.now += 0.5 * len(inputs["x"])
            return await super().run(verb, inputs, deadline)

    costs = Costs(clock)
    batcher = await start_batcher(Slow(), costs=costs, clock=clock)
    tickets = [Ticket(remaining=Work(10.0)), Ticket(remaining=Work(10.0))]
    for _ in range(3):
        await asyncio.gather(*(batcher.run(group(i, ticket=ticket)) for i, ticket in enumerate(tickets)))
    await batcher.close()
    assert [ticket.used_s for ticket in tickets] == [1.5, 1.5]
    assert all(ticket.remaining.device_s < 10.0 for ticket in tickets)
    assert costs.seconds(group(0).kind, 2) >= 1.0


async def test_a_failed_group_is_charged_and_its_work_remains(start_batcher: StartBatcher, echo: Echo) -> None:
    echo.failures = {1: StaleHandle("gone")}
    batcher = await start_batcher(echo)
    tickets = [Ticket(remaining=Work(1.0, 1.0)) for _ in range(2)]
    await batcher.run(group(0, ticket=tickets[0]))  # from here on the cost of such a call is known
    await batcher.run(group(0, ticket=tickets[0]))
    with pytest.raises(StaleHandle):
        await batcher.run(group(1, ticket=tickets[1]))
    assert tickets[0].remaining.device_s < 1.0
    assert tickets[1].remaining == Work(1.0, 1.0)
    assert tickets[1].used_s > 0
