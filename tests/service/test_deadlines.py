"""Plans with deadlines, plans after a burst, and plans of robots that hang up."""

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


def test_a_deadline_is_met_with_fewer_iterations_or_refused_with_an_error(server: Server, client: PlanClient) -> None:
    """A short deadline gives fewer iterations. A request that no plan was ever fast enough for is refused."""
    options = {"num_iterations": 10, "num_video_samples": 30}
    whole = client.plan(observation(options=options))
    total_ms = 1000 * whole.receipt.stage_s["total"]
    hurried = None
    for _ in range(5):  # a machine that stalls may make any single plan late
        with contextlib.suppress(DeadlineExceeded):
            hurried = client.plan(observation(options=options, deadline_ms=int(total_ms / 4)))
            break
    assert hurried is not None
    assert hurried.receipt.deadline is DeadlineResult.MET_DEGRADED
    assert hurried.receipt.iterations_done < 10
    refused = post(server, observation(deadline_ms=1))
    assert refused.status_code == 504
    assert "deadline" not in refused.json()
    assert 'wavserve_plans_total{deadline="refused"}' in httpx.get(f"{server.http}/metrics").text


def test_plans_iterate_again_after_a_burst(client: PlanClient) -> None:
    """A burst makes every plan slow. It must not leave robots with deadlines without planning forever."""
    alone = client.plan(observation())
    deadline_ms = int(4000 * alone.receipt.stage_s["total"])
    with concurrent.futures.ThreadPoolExecutor(12) as robots:
        list(robots.map(client.plan, [observation(seed=seed) for seed in range(12)]))
    for _ in range(30):
        with contextlib.suppress(DeadlineExceeded, Overloaded):
            if client.plan(observation(deadline_ms=deadline_ms)).receipt.deadline is DeadlineResult.MET:
                return
        time.sleep(1.0)
    raise AssertionError("no plan got all its iterations after the burst")


@pytest.mark.parametrize("edge", ["http", "grpc"])
async def test_a_robot_that_hangs_up_leaves_no_plan_and_no_slot(server: Server, edge: str) -> None:
    """The slots are free long before their lease expires."""
    await until(lambda: not any(gauges(server).values()))  # the gauge of a Triton's slots is updated once a second
    asking = asyncio.create_task(ask_over(edge, server, observation(options=LONG)))
    await until(lambda: gauges(server)["plans_in_flight"] == 1 and gauges(server)["arena_slots_used"] > 0)
    asking.cancel()
    await until(lambda: not any(gauges(server).values()))


async def ask_over(edge: str, server: Server, sent: Observation) -> None:
    if edge == "grpc":
        async with AsyncPlanClient(server.grpc) as robot:
            await robot.plan(sent)
    else:
        async with httpx.AsyncClient(timeout=300) as robot:
            await robot.post(f"{server.http}/v1/plan", files=form(sent))


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the condition did not become true")


def gauges(server: Server) -> dict[str, float]:
    """The plans under way, and what they hold."""
    text = httpx.get(f"{server.http}/metrics", timeout=30).text
    names = ("plans_in_flight", "queue_depth", "arena_slots_used", "remaining_device_seconds")
    return {name: float(re.search(rf"^wavserve_{name} (.*)$", text, re.MULTILINE)[1]) for name in names}
