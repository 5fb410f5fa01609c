"""The event loop's lag, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from wavserve.system.loop_lag import TICK_S, measure_lag


async def test_the_lag_is_what_a_sleep_takes_longer_than_asked() -> None:
    now, lags, late_s = 0.0, list[float](), iter((0.0, 0.25))

    async def sleep(seconds: float) -> None:
        nonlocal now
        try:
            now += seconds + next(late_s)
        except StopIteration:
            raise asyncio.CancelledError from None

    with pytest.raises(asyncio.CancelledError):
        await measure_lag(lags.append, lambda: now, sleep)
    assert lags == pytest.approx([0.0, 0.25])


async def test_a_blocked_loop_is_seen() -> None:
    lags = list[float]()
    clock = asyncio.get_running_loop().time
    measured = asyncio.Event()

    def observe(seconds: float) -> None:
        lags.append(seconds)
        measured.set()

    task = asyncio.create_task(measure_lag(observe, clock))
    await asyncio.sleep(0)
    blocked_until = clock() + TICK_S + 0.3
    while clock() < blocked_until:
        pass
    await measured.wait()
    task.cancel()
    assert max(lags) >= 0.25
