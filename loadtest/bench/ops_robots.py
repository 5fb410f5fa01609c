"""Many robots on streams from one process: each observes every two seconds and pings as robots do.

Thin clients, and pictures that are encoded before, so that the process keeps up. Knows no service process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import grpc.aio

from loadtest.bench.control_frames import INSTRUCTION, Pictures, robot
from loadtest.bench.control_links import EXECUTED_STEPS, Pace, StreamLink, seen_by
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.calls import MAX_MESSAGE_BYTES, method_path
from wavserve.clients.channels import channel_options
from wavserve.clients.robot_contract import hello
from wavserve.core.messages import Observation, PolicyInfo

PERIOD_S = 2.0
SETTLE_S = 2.0
"""Answers of the first seconds do not count."""


def drive(target: str, num_robots: int, seconds: float) -> list[float]:
    """Seconds from each observation to its chunk, of all robots. Raises what a stream raises."""
    return asyncio.run(_drive(target, num_robots, SETTLE_S + seconds))


async def _drive(target: str, num_robots: int, until: float) -> list[float]:
    async with AsyncPlanClient(target) as client:
        policy = await client.policy()
    # the planner's defaults, as a robot that asks for nothing gets them
    seen = [replace(each, options={}) for each in seen_by(policy, Pictures.recorded())]
    paces = [Pace(number * PERIOD_S / num_robots, PERIOD_S, until) for number in range(num_robots)]
    each = await asyncio.gather(*(_robot(target, policy, f"ops-{n}", paces[n], seen) for n in range(num_robots)))
    return [seconds for robots in each for seconds in robots]


async def _robot(target: str, policy: PolicyInfo, name: str, pace: Pace, seen: Sequence[Observation]) -> list[float]:
    options = channel_options(target, MAX_MESSAGE_BYTES, proxy=False)
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        stream = StreamLink(channel.stream_stream(method_path("Control"))())
        await stream.open(hello(policy, robot(policy, name), INSTRUCTION, None))
        asking = asyncio.create_task(_ask(stream, pace, seen))
        tasks = [asking, asyncio.create_task(stream.read()), asyncio.create_task(stream.ping())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await stream.close()
            return asking.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(stream: StreamLink, pace: Pace, seen: Sequence[Observation]) -> list[float]:
    found, opened = [], time.monotonic()
    async for number in pace.turns():
        executed = EXECUTED_STEPS if number else 0
        observation = replace(
            seen[number % len(seen)], control_step=EXECUTED_STEPS * number, executed_steps=executed, seed=number
        )
        began = time.monotonic()
        await stream.plan(number, observation)
        if began - opened >= SETTLE_S:
            found.append(time.monotonic() - began)
    return found
