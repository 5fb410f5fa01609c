"""Calls that run together: their results, and what happens to the others when one fails or the caller is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from tests.clock import yield_to_loop
from wavserve.core.errors import ModelDown
from wavserve.planning.gather import gather


async def after(turns: int, value: int) -> int:
    await yield_to_loop(turns)
    return value


async def fail() -> int:
    raise ModelDown("gone")


async def test_results_have_the_order_of_the_parts() -> None:
    assert await gather(after(3, 1), after(0, 2), after(1, 3)) == (1, 2, 3)
    assert await gather() == ()


async def test_a_failure_is_raised_and_the_others_are_stopped() -> None:
    stopped = asyncio.Event()

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with pytest.raises(ModelDown, match="gone"):
        await gather(other(), fail())
    assert stopped.is_set()


@pytest.mark.parametrize("cancelled_after", range(1, 7))
async def test_a_cancelled_caller_gets_the_cancellation_even_when_a_part_failed(cancelled_after: int) -> None:
    """Also while the others are being stopped because of the failure. A task group would raise the failure alone."""

    async def slow_to_stop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await yield_to_loop(10)

    caller = asyncio.ensure_future(gather(slow_to_stop(), fail()))
    await yield_to_loop(cancelled_after)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
