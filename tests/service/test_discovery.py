"""A gateway that finds its Tritons by a real DNS server: pods join, leave and are replaced while robots plan.

A pod is an address of this machine at which connections are passed on to a real Triton, as Kubernetes would.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.backends.rig import RunningTriton, triton
from tests.dns_server import DnsServer, dns_server
from tests.service.processes import until
from tests.service.rig import REPOSITORY, Server, observation, start
from tests.service.test_remote import OPTIONS, ready, video_calls
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle.bundle import Bundle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.types import Array
from wavserve.system.processes import free_ports

FIRST, SECOND, THIRD = (f"127.0.0.{number}" for number in (2, 3, 4))

pytestmark = pytest.mark.skipif(
    find_obstacle(REPOSITORY) is not None, reason=f"no real Triton on this machine: {find_obstacle(REPOSITORY)}"
)


@pytest.fixture(scope="module")
async def tritons(anyio_backend: object, tiny: Bundle) -> AsyncIterator[list[RunningTriton]]:
    """Two Tritons of one policy."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(triton(tiny)) for _ in range(2)]


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


class Pods:
    """Addresses at which Tritons answer, all at one port."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self._open: dict[str, tuple[asyncio.Server, set[asyncio.StreamWriter]]] = {}

    async def begins(self, host: str, behind: RunningTriton) -> None:
        links: set[asyncio.StreamWriter] = set()

        async def relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            where, port = behind.url.split(":")
            other_reader, other_writer = await asyncio.open_connection(where, int(port))
            links.update((writer, other_writer))

            async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
                target.close()

            await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer), return_exceptions=True)

        self._open[host] = await asyncio.start_server(relayed, host, self.port), links

    async def dies(self, host: str) -> None:
        """Its connections break, and no other is accepted."""
        server, links = self._open.pop(host)
        server.close()
        for link in links:
            link.transport.abort()
        await server.wait_closed()


@pytest.fixture
async def pods(anyio_backend: object) -> AsyncIterator[Pods]:
    running = Pods()
    yield running
    for host in [*running._open]:
        await running.dies(host)


def in_flight(server: Server) -> int:
    """Plans under way."""
    lines = httpx.get(f"{server.http}/metrics", timeout=10).text.splitlines()
    return int(next(float(line.split()[1]) for line in lines if line.startswith("wavserve_plans_in_flight ")))


def devices(server: Server) -> set[str]:
    """The Tritons that the gateway's metrics show, by address."""
    lines = httpx.get(f"{server.http}/metrics", timeout=10).text.splitlines()
    return {line.split('device="')[1].split(":")[0] for line in lines if line.startswith("wavserve_model_up{")}


async def test_two_gateways_prefer_different_tritons_and_take_the_other_one_when_theirs_is_gone(
    tritons: list[RunningTriton], dns: DnsServer, pods: Pods, tmp_path: Path
) -> None:
    dns.addresses = (FIRST, SECOND)
    for host, behind in zip((FIRST, SECOND), tritons, strict=True):
        await pods.begins(host, behind)
    urls = f"dns://{dns.at}/triton.:{pods.port}"
    gateways = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        # test calls count as calls: so rare that only the calls of plans find a failure
        own = ("--set=triton.gateways=a,b", f"--set=triton.gateway={name}", "--set=triton.canary_s=600")
        gateways.append(await asyncio.to_thread(start, tmp_path / name, "triton", "--triton-url", urls, *own))
    try:
        await asyncio.to_thread(until_idle, tritons)
        used = [await asyncio.to_thread(used_for_four_plans, gateway, tritons) for gateway in gateways]
        assert sorted(used) == [[0], [1]], "each its own, and not the other's"
        await pods.dies(FIRST)
        used = [await asyncio.to_thread(used_for_four_plans, gateway, tritons) for gateway in gateways]
        assert used == [[1], [1]]
    finally:
        for gateway in gateways:
            await asyncio.to_thread(gateway.stop)


async def test_tritons_join_leave_and_are_replaced_while_robots_plan(
    tritons: list[RunningTriton], dns: DnsServer, pods: Pods, tmp_path: Path
) -> None:
    """Every plan is answered, and equal to the one of a fleet that never changes."""
    dns.addresses = (FIRST,)
    await pods.begins(FIRST, tritons[0])
    urls = f"dns://{dns.at}/triton.:{pods.port}"
    gateway = await asyncio.to_thread(start, tmp_path, "triton", "--triton-url", urls, "--set=triton.discovery_s=0.2")
    try:
        await change_the_fleet(gateway, tritons, dns, pods, tmp_path / "server.log")
    finally:
        assert await asyncio.to_thread(gateway.stop) == 0
    log = (tmp_path / "server.log").read_text()
    assert f"{SECOND}:{pods.port} is drained" in log
    assert "Traceback" not in log


async def change_the_fleet(
    gateway: Server, tritons: list[RunningTriton], dns: DnsServer, pods: Pods, log: Path
) -> None:
    async def seen(what: set[str]) -> None:
        await asyncio.to_thread(until, lambda: devices(gateway) == what, f"the gateway knows {what}")

    async def takes_plans(host: str) -> None:
        line = f"{host}:{pods.port} takes plans"
        await asyncio.to_thread(until, lambda: line in log.read_text(), line)

    one, other = tritons
    with PlanClient(gateway.grpc) as client, concurrent.futures.ThreadPoolExecutor(4) as robots:

        def plan() -> Array:
            return client.plan(observation(seed=9, options=OPTIONS)).actions

        def plans(number: int) -> list[concurrent.futures.Future[Array]]:
            return [robots.submit(plan) for _ in range(number)]

        async def check(answers: list[concurrent.futures.Future[Array]]) -> None:
            for each in answers:
                np.testing.assert_allclose(await asyncio.wrap_future(each), expected, atol=1e-5)

        expected = await asyncio.to_thread(plan)
        await pods.begins(SECOND, other)
        before = await asyncio.to_thread(video_calls, other.url)
        dns.addresses = (FIRST, SECOND)
        await takes_plans(SECOND)
        assert await asyncio.to_thread(video_calls, other.url) >= before + 3, "it was warmed before"
        await check(plans(8))
        await seen({FIRST, SECOND})

        under_way = plans(8)
        dns.addresses = (SECOND,)
        await check(under_way)
        await seen({SECOND})
        await check(plans(4))

        under_way = plans(4)  # as many as robots: a request that comes while no Triton works is refused
        await asyncio.to_thread(until, lambda: in_flight(gateway) == 4, "plans are under way")
        await pods.dies(SECOND)  # the pod is replaced
        await pods.begins(THIRD, one)
        dns.addresses = (THIRD,)
        await check(under_way)
        await seen({THIRD})
        await check(plans(4))

        dns.silent = True
        await check(plans(4))
        assert await asyncio.to_thread(ready, gateway.http)


def until_idle(tritons: list[RunningTriton]) -> None:
    """Waits until the warm-up plans of all gateways have been made."""
    calls: list[list[int]] = []

    def unchanged() -> bool:
        time.sleep(1.0)
        calls.append([video_calls(each.url) for each in tritons])
        return calls[-3:] == 3 * calls[-1:]

    until(unchanged, "no warm-up plan runs")


def used_for_four_plans(gateway: Server, tritons: list[RunningTriton]) -> list[int]:
    """Which of the Tritons four plans at a time were made on."""
    before = [video_calls(each.url) for each in tritons]
    with PlanClient(gateway.grpc) as client, concurrent.futures.ThreadPoolExecutor(4) as robots:
        list(robots.map(lambda seed: client.plan(observation(seed=seed, options=OPTIONS)), range(4)))
    after = [video_calls(each.url) for each in tritons]
    return [number for number, (now, then) in enumerate(zip(after, before, strict=True)) if now > then]
