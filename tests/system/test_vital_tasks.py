"""A vital task's death is reported once, with a traceback in the log, and its planned end is not."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.clock import yield_to_loop
from wavserve.system.vital_tasks import VitalTask


async def fails() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("bug")


async def returns() -> None:
    await asyncio.sleep(0)


async def is_cancelled() -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@pytest.mark.parametrize("work", [fails, returns, is_cancelled])
async def test_every_end_that_nobody_asked_for_is_a_death(work, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    deaths: list[str] = []
    VitalTask(work(), "the dispatcher", deaths.append)
    with caplog.at_level(logging.CRITICAL):
        await yield_to_loop()
    assert deaths == ["the dispatcher"]
    [record] = caplog.records
    assert "the dispatcher died" in record.message
    assert (record.exc_info is not None and record.exc_info[0] is ZeroDivisionError) == (work is fails)


async def test_a_task_that_its_owner_ends_is_no_death() -> None:
    deaths: list[str] = []
    task = VitalTask(asyncio.sleep(1000), "sleeper", deaths.append)
    await task.stop()
    done = asyncio.Event()
    waiting = VitalTask(done.wait(), "waiter", deaths.append)
    done.set()
    await waiting.join()
    assert deaths == []


async def test_joining_raises_the_tasks_error() -> None:
    deaths: list[str] = []
    task = VitalTask(fails(), "server", deaths.append)
    with pytest.raises(ZeroDivisionError):
        await task.join()
    assert deaths == []
