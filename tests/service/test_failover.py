"""Gateways that share a Redis, for real: robots that move between them, a Redis in trouble, and kills under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from redis import asyncio as aioredis

from loadtest.aims import Aim
from loadtest.failover import figures, oracle
from loadtest.failover.fleet import Logbook, fleet
from loadtest.failover.oracle import Oracle
from loadtest.failover.run import Wish, gateway_arguments, load, lone, report, run
from loadtest.failover.site import Site, running_site
from loadtest.redis_server import RedisServer
from tests.service.rig import REPOSITORY, observation
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.core.messages import ActionChunk

OPTIONS = {"num_iterations": 2, "num_video_samples": 3, "num_value_samples": 2, "num_flow_steps": 2, "warm_start": True}
OPTIONS |= {"video_elite_fraction": 0.7, "value_elite_fraction": 0.5}
TROUBLE_S = 2.5
"""How long Redis is in trouble: longer than a gateway waits for it."""
CALM_S = 1.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failover")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    """Two gateways with the models in their own processes; a bundle is made before they start."""

    async def make_bundle() -> None:
        async with lone(folder):
            pass

    asyncio.run(make_bundle())
    with running_site(folder, gateway_arguments(folder, "local")) as running:
        yield running


async def episode(site: Site, gateways: Callable[[int], int]) -> list[ActionChunk]:
    """Eight plans of one robot in one session. `gateways`: plan -> number of its gateway."""
    clients = [AsyncPlanClient(each.grpc) for each in site.gateways]
    chunks: list[ActionChunk] = []
    for number in range(8):
        asked = observation(
            number % 6,
            seed=5,
            sequence=number,
            control_step=2 * number,
            executed_steps=2 if number else 0,
            session_id=chunks[-1].session_id if chunks else None,
            options=OPTIONS,
        )
        client = clients[gateways(number)]
        chunks.append(await client.plan(asked))
        again = await clients[1 - gateways(number)].plan(_retry(asked, chunks[-1], number))
        assert again.chunk_id == chunks[-1].chunk_id
    for client in clients:
        await client.close()
    return chunks


def _retry(asked, answered: ActionChunk, number: int):  # type: ignore[no-untyped-def]
    """The same request again. The first one of a session has no session to retry in: its answer names it."""
    return asked if number else observation(0, seed=5, session_id=answered.session_id, options=OPTIONS)


async def test_a_robot_that_alternates_between_gateways_gets_what_one_that_stays_gets(site: Site) -> None:
    stays = await episode(site, lambda number: 0)
    alternates = await episode(site, lambda number: number % 2)
    for one, other in zip(stays, alternates, strict=True):
        assert one.actions.tobytes() == other.actions.tobytes()
        assert one.receipt.warm_start == other.receipt.warm_start
        assert one.receipt.digests == other.receipt.digests
    assert stays[-1].receipt.warm_start
    assert not np.array_equal(stays[-1].actions, stays[-2].actions)


async def restarted(redis: RedisServer) -> None:
    redis.stop()
    await asyncio.sleep(TROUBLE_S)
    await asyncio.to_thread(redis.start)


async def paused(redis: RedisServer) -> None:
    assert redis.process is not None
    os.kill(redis.process.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(TROUBLE_S)
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)


async def full(redis: RedisServer) -> None:
    async with aioredis.Redis.from_url(redis.url) as client:
        await client.config_set("maxmemory", 1)
        await asyncio.sleep(TROUBLE_S)
        await client.config_set("maxmemory", 0)


async def garbage(redis: RedisServer) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                writer.write(b"*3\r\n$1\r\nx\r\n$4\r\nWAVS\r\n:7\r\n")

    redis.stop()
    server = await asyncio.start_server(talk, "127.0.0.1", redis.port)
    await asyncio.sleep(TROUBLE_S)
    server.close()
    await asyncio.sleep(0.1)  # for connections that it accepted just before
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
    await asyncio.to_thread(redis.start)


@asynccontextmanager
async def oracle_of(folder: Path) -> AsyncIterator[Oracle]:
    async with lone(folder) as service:
        yield Oracle(service)


@pytest.mark.parametrize("trouble", [restarted, paused, full, garbage], ids=lambda trouble: trouble.__name__)
async def test_a_redis_in_trouble_costs_no_answer(
    site: Site, folder: Path, trouble: Callable[[RedisServer], Awaitable[None]]
) -> None:
    """Robots get typed errors that a retry mends, right plans before and after, and the gateways go on."""
    logbook, pids, ended = Logbook(), [each.pid for each in site.gateways], 0

    async def work() -> None:
        nonlocal ended
        await every_robot_is_answered()
        await asyncio.sleep(CALM_S)
        await trouble(site.redis)
        ended = len(logbook.answers)
        await every_robot_is_answered()

    async def every_robot_is_answered() -> None:
        while len({each.role.name for each in logbook.answers[ended:]}) < len(fleet("")):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)

    async with asyncio.timeout(120):
        await load(site.gateways, logbook, trouble.__name__, work)
    recorded, twice = oracle.recorded_plans(each.records for each in site.gateways)
    async with oracle_of(folder) as lone_policy:
        verdict = await lone_policy.judge(logbook.answers, recorded)
    assert verdict.num_alone + verdict.num_replayed == len(logbook.answers) >= 2 * len(fleet(""))
    missed = unmet(figures.evaluate(logbook, fleet(trouble.__name__), [], verdict, twice))
    assert missed == []
    assert any(each.outcome in ("failed", "refused") for each in logbook.log.requests), "the trouble was noticed"
    assert [each.pid for each in site.gateways] == pids
    assert all(each.num_starts == 1 and each.child is not None and each.child.is_ready() for each in site.gateways)


def unmet(aims: list[Aim]) -> list[Aim]:
    return [each for each in aims if each["met"] is False]


@pytest.mark.slow
@pytest.mark.skipif(
    find_obstacle(REPOSITORY) is not None, reason=f"no real Triton on this machine: {find_obstacle(REPOSITORY)}"
)
def test_five_kills_cost_no_answer(tmp_path: Path) -> None:
    """How long a robot waits is the machine's business here; `make failover` has an aim for it."""
    found = report(run(tmp_path, Wish(num_kills=5, seed=0, seconds=0.0)))
    assert found["kills"] == 5
    assert [each for each in unmet(found["aims"]) if not each["name"].startswith("longest gap")] == []
