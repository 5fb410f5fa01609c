"""Parts that are closed side by side: all of them, whatever becomes of one."""

from __future__ import annotations

import asyncio

import pytest

from wavserve.core.closing import close_all


async def test_every_part_is_closed_and_the_first_error_is_raised_then() -> None:
    closed: list[str] = []

    async def fail(name: str) -> None:
        raise ValueError(name)

    async def slow() -> None:
        await asyncio.sleep(0.01)
        closed.append("slow")

    with pytest.raises(ValueError, match="first"):
        await close_all(fail("first"), slow(), fail("second"))
    assert closed == ["slow"]
    await close_all(slow())
    await close_all()
