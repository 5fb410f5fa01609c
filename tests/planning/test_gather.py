"""Calls made at once: what they return, and what becomes of the others when one fails or the caller goes."""

from __future__ import annotations

import asyncio

import pytest

from wavserve.core.errors import ModelDown
from wavserve.planning.gather import together


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def after(count: int, value: int) -> int:
    await turns(count)
    return value


async def down() -> int:
    raise ModelDown("gone")


def test_results_come_in_the_order_of_the_parts() -> None:
    async def main() -> None:
        assert await together(after(3, 1), after(0, 2), after(1, 3)) == (1, 2, 3)
        assert await together() == ()

    asyncio.run(main())


def test_a_failure_is_raised_and_the_others_are_stopped() -> None:
    async def main() -> None:
        stopped = asyncio.Event()

        async def other() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        with pytest.raises(ModelDown, match="gone"):
            await together(other(), down())
        assert stopped.is_set()

    asyncio.run(main())


@pytest.mark.parametrize("cancelled_after", range(1, 7))
def test_a_caller_that_is_cancelled_is_told_so_whatever_failed(cancelled_after: int) -> None:
    """Also while the others are being stopped for what failed, when a task group would tell of the failure alone."""

    async def reluctant() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns(10)

    async def main() -> None:
        caller = asyncio.ensure_future(together(reluctant(), down()))
        await turns(cancelled_after)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(main())
