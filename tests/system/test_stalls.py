"""What counts as stuck."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from tests.clock import ManualClock
from tests.computing import computing, starved, stop
from wavserve.system.processes import Process
from wavserve.system.stalls import TICK_S, AwakeTime, RunTime, answered_within, limit_s


@pytest.mark.parametrize(
    ("predicted_s", "ceiling_s", "limit"), [(0.01, 60.0, 2.0), (1.0, 60.0, 5.0), (30.0, 60.0, 60.0), (0.01, 1.0, 1.0)]
)
def test_the_limit_is_five_times_the_prediction_at_least_two_seconds_and_at_most_the_ceiling(
    predicted_s: float, ceiling_s: float, limit: float
) -> None:
    assert limit_s(predicted_s, ceiling_s) == limit


def test_time_in_which_the_process_itself_stood_still_does_not_count() -> None:
    clock = ManualClock()
    awake = AwakeTime(clock)
    clock.now += TICK_S
    assert awake.tick() == TICK_S
    clock.now += 100.0
    assert awake.tick() == 2 * TICK_S


def test_the_time_counts_in_which_a_process_could_run() -> None:
    """A processor works for at most one of 1000 seconds that pass in a moment. A process that is stopped wants none."""
    with computing() as process:
        run_time = RunTime(lambda: process)
        assert run_time.of(1000.0) == 1000.0, "nothing is known of the first time"
        assert run_time.of(1000.0) < 100.0
        stop(process)
        assert run_time.of(1000.0) == 1000.0
    assert run_time.of(1000.0) == 1000.0, "it has ended"


def test_a_starved_process_counts_with_the_processor_time_that_it_gets() -> None:
    with starved() as process:
        run_time, counted_s = RunTime(lambda: process), 0.0
        run_time.of(0.0)
        for _ in range(10):
            time.sleep(0.1)
            counted_s += run_time.of(0.1)
    assert counted_s < 0.5


@pytest.mark.parametrize("unknown", [None, Process(2**22 + 1, 1), Process(1, 0)])
def test_all_time_counts_where_nothing_is_known_of_the_process(unknown: Process | None) -> None:
    run_time = RunTime(lambda: unknown)
    assert [run_time.of(1000.0), run_time.of(1000.0)] == [1000.0, 1000.0]


def test_the_thread_that_counts_says_nothing_of_its_own_process() -> None:
    """It runs, or it would not count."""
    code = """
from wavserve.system.processes import Process
from wavserve.system.stalls import RunTime
run_time = RunTime(Process.me)
print(run_time.of(1000.0), run_time.of(1000.0))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1000.0", "1000.0"]


async def test_an_answer_has_more_time_while_less_of_it_counts() -> None:
    """Work of 1.5 ticks, which may take half a tick: it is in time only if the ticks count for nothing."""
    assert await answered_within(asyncio.ensure_future(asyncio.sleep(1.5 * TICK_S)), 0.5 * TICK_S, lambda seconds: 0.0)
    assert not await answered_within(asyncio.ensure_future(asyncio.sleep(1.5 * TICK_S)), 0.5 * TICK_S)
