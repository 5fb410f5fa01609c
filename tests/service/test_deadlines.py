"""Plans under deadlines, after a burst, and of robots that hang up."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import re
import time
from collections.abc import Callable

import httpx
import pytest

from tests.service.rig import LONG, Server, form, observation, post
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import DeadlineExceeded, Overloaded
from wavserve.core.messages import Observation
from wavserve.core.types import DeadlineResult


def test_a_deadline_is_met_by_doing_less_or_not_at_all(server: Server, client: PlanClient) -> None:
    """Many iterations under a deadline: fewer are done. No time at all: an error, and the session is as it was."""
    options = {"num_iterations": 10, "num_video_samples": 30}
    whole = client.plan(observation(options=options))
    total_ms = 1000 * whole.receipt.stage_s["total"]
    hurried = None
    for _ in range(5):  # a machine that stalls may make any single plan late, and then it is refused
        with contextlib.suppress(DeadlineExceeded):
            hurried = client.plan(observation(options=options, deadline_ms=int(total_ms / 4)))
            break
    assert hurried is not None
    assert hurried.receipt.deadline is DeadlineResult.MET_DEGRADED
    assert hurried.receipt.iterations_done < 10
    assert post(server, observation(deadline_ms=1)).status_code == 504
    assert 'wavserve_plans_total{deadline="missed"}' in httpx.get(f"{server.http}/metrics").text


def test_after_a_busy_moment_plans_iterate_again(client: PlanClient) -> None:
    """A burst makes every plan slow; robots with deadlines must not be left without planning for good."""
    alone = client.plan(observation())
    deadline_ms = int(4000 * alone.receipt.stage_s["total"])
    with concurrent.futures.ThreadPoolExecutor(12) as robots:
        list(robots.map(client.plan, [observation(seed=seed) for seed in range(12)]))
    for _ in range(30):
        with contextlib.suppress(DeadlineExceeded, Overloaded):
            if client.plan(observation(deadline_ms=deadline_ms)).receipt.deadline is DeadlineResult.MET:
                return
        time.sleep(1.0)
    raise AssertionError("planning never came back")


@pytest.mark.parametrize("edge", ["http", "grpc"])
async def test_a_robot_that_hangs_up_leaves_no_plan_and_no_slot(server: Server, edge: str) -> None:
    """Long before the slots' lease ends."""
    await until(lambda: not any(gauges(server).values()))  # Triton's slots are looked at now and then
    asking = asyncio.create_task(ask_over(edge, server, observation(options=LONG)))
    await until(lambda: gauges(server)["plans_in_flight"] == 1 and gauges(server)["arena_slots_used"] > 0)
    asking.cancel()
    await until(lambda: not any(gauges(server).values()))


async def ask_over(edge: str, server: Server, sent: Observation) -> None:
    if edge == "grpc":
        async with AsyncPlanClient(server.grpc) as robot:
            await robot.plan(sent)
    else:
        async with httpx.AsyncClient(timeout=60) as robot:
            await robot.post(f"{server.http}/v1/plan", files=form(sent))


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to that")


def gauges(server: Server) -> dict[str, float]:
    """What is under way, and what it holds."""
    text = httpx.get(f"{server.http}/metrics", timeout=30).text
    names = ("plans_in_flight", "queue_depth", "arena_slots_used", "remaining_device_seconds")
    return {name: float(re.search(rf"^wavserve_{name} (.*)$", text, re.MULTILINE)[1]) for name in names}
