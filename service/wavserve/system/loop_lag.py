"""How late the event loop runs what is due: the first sign that a gateway has too much to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

TICK_S = 0.1


async def measure_lag(
    observe: Callable[[float], None],
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Reports how much longer than TICK_S each sleep took, in seconds, until it is cancelled."""
    while True:
        began = clock()
        await sleep(TICK_S)
        observe(max(0.0, clock() - began - TICK_S))
