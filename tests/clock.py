"""Time and the event loop in a test's hands."""

from __future__ import annotations

import asyncio


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def yield_to_loop(turns: int = 20) -> None:
    """Lets every other task run, `turns` times."""
    for _ in range(turns):
        await asyncio.sleep(0)
