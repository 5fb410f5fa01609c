"""What a call is charged with: its own time at the device, whatever it waited for at the backend."""

from __future__ import annotations

import asyncio

import pytest

from tests.clock import ManualClock, yield_to_loop
from tests.scheduling.echo import Echo, StartBatcher, group, limits, submit
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.costs import CallKind, Costs
from wavserve.scheduling.ledger import Ticket


async def test_a_short_call_behind_a_long_one_is_charged_for_itself_alone(gated: Echo, clock: ManualClock) -> None:
    """The decode is merely ready at the backend while the imagination runs."""
    calls: dict[str, float] = {}
    costs = Costs(clock)
    batcher = Batcher(
        gated, limits(rows=1, depth=2), costs, lambda verb, *sizes: calls.update({verb: sizes[-1]}), clock
    )
    batcher.start()
    long, short = Ticket(), Ticket()
    decode = group(1, "decode", short)
    waits: list[tuple[float, float]] = []
    decode.on_call = lambda queued_s, call_s: waits.append((queued_s, call_s))
    answers = await submit(batcher, group(0, "imagine", long))
    answers += await submit(batcher, decode)
    assert len(gated.calls) == 2, "the backend has both"
    for seconds in (0.100, 0.005):
        clock.now += seconds
        gated.step()
        await yield_to_loop(30)
    await asyncio.gather(*answers)
    assert (long.used_s, short.used_s) == (pytest.approx(0.100), pytest.approx(0.005))
    assert calls == {"imagine": pytest.approx(0.100), "decode": pytest.approx(0.005)}
    assert waits == [(pytest.approx(0.100), pytest.approx(0.005))]
    assert costs.seconds(CallKind("imagine"), 1) == pytest.approx(1.5 * 0.100), "the first call's margin is a half"
    assert costs.seconds(CallKind("decode"), 1) == pytest.approx(1.5 * 0.005)
    assert costs.wall_s(CallKind("decode")) == pytest.approx(0.005)
    await batcher.close()


async def test_two_calls_on_two_workers_share_the_time_and_a_third_waits_for_free(
    start_batcher: StartBatcher, gated: Echo, clock: ManualClock
) -> None:
    batcher = await start_batcher(gated, limits(rows=1, depth=3, workers=2), clock=clock)
    tickets = [Ticket() for _ in range(3)]
    answers = await submit(batcher, *(group(i, ticket=ticket) for i, ticket in enumerate(tickets)))
    assert len(gated.calls) == 3
    for seconds in (0.2, 0.1, 0.05):
        clock.now += seconds
        gated.step()
        await yield_to_loop(30)
    await asyncio.gather(*answers)
    assert [ticket.used_s for ticket in tickets] == [
        pytest.approx(0.1),
        pytest.approx(0.1 + 0.05),
        pytest.approx(0.05 + 0.05),
    ]


async def test_a_call_dropped_while_it_waits_costs_nothing_and_teaches_nothing(
    start_batcher: StartBatcher, gated: Echo, clock: ManualClock
) -> None:
    costs = Costs(clock)
    batcher = await start_batcher(gated, limits(rows=1, depth=2), costs, clock)
    [first] = await submit(batcher, group(0))
    dropped = Ticket()
    [waiting] = await submit(batcher, group(1, "decode", dropped))
    clock.now += 0.5
    waiting.cancel()
    await yield_to_loop(30)
    assert dropped.used_s == 0.0
    assert costs.seconds(CallKind("decode"), 1) == 0.0
    gated.step()
    await first
