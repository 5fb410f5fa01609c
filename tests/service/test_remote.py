"""A gateway in front of foreign Tritons: no torch, several endpoints, one policy for all."""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from loadtest.processes import models_of
from tests.backends.rig import SLOTS, RunningTriton, triton
from tests.service.processes import PATIENCE_S, until
from tests.service.rig import REPOSITORY, Server, observation, start
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle.bundle import Bundle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.verbs import MODELS
from wavserve.models.weights import presets
from wavserve.system.processes import free_ports

OPTIONS = {"num_iterations": 1, "num_video_samples": 4, "num_value_samples": 2, "value_elite_fraction": 0.5}
NO_TORCH = """
import sys
for name in ("torch", "diffusers", "transformers", "accelerate", "einops", "yaml"):
    sys.modules[name] = None  # makes its import fail, as if it were not installed
from wavserve.cli import main
sys.exit(main(sys.argv[1:]))
"""

pytestmark = pytest.mark.skipif(
    find_obstacle(REPOSITORY) is not None, reason=f"no real Triton on this machine: {find_obstacle(REPOSITORY)}"
)


@pytest.fixture(scope="module")
async def tritons(anyio_backend: object, tiny: Bundle) -> AsyncIterator[list[RunningTriton]]:
    """Two Tritons of one policy. Sync tests use this async fixture, so it asks for `anyio_backend` by name."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(triton(tiny)) for _ in range(2)]


@pytest.fixture
async def other_policy(anyio_backend: object, tmp_path: Path) -> AsyncIterator[RunningTriton]:
    """A Triton with another policy."""
    async with triton(presets.create("tiny", tmp_path / "tiny", seed=1)) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, tritons: list[RunningTriton]) -> Iterator[Server]:
    """A gateway in front of both.

    Its configured slices do not fit the slots of these Tritons, so it must use the numbers that they report. Health
    checks are so rare that only the calls of plans can find a failure.
    """
    urls = ",".join(each.url for each in tritons)
    folder = tmp_path_factory.mktemp("gateway")
    chosen = (f"planner.slice_size={SLOTS + 2}", f"triton.canary_s={10 * PATIENCE_S}")
    running = start(folder, "triton", "--triton-url", urls, *(f"--set={each}" for each in chosen))
    yield running
    assert running.stop() == 0


async def relay(url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes a connection on to a server."""
    host, port = url.split(":")
    other_reader, other_writer = await asyncio.open_connection(host, int(port))

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.close()

    await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer), return_exceptions=True)


def video_calls(url: str) -> int:
    """The number of calls that the video model has answered, from Triton's statistics."""
    with InferenceServerClient(url) as client:
        statistics = client.get_inference_statistics("video_dit")
    return int(statistics.model_stats[0].inference_count)


def ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz", timeout=10).is_success


def test_plans_of_several_robots_spread_over_the_endpoints(gateway: Server, tritons: list[RunningTriton]) -> None:
    with PlanClient(gateway.grpc) as client:
        alone = [client.plan(observation(seed=seed, options=OPTIONS)).actions for seed in range(4)]
        before = [video_calls(each.url) for each in tritons]
        with concurrent.futures.ThreadPoolExecutor(4) as robots:
            together = list(robots.map(lambda seed: client.plan(observation(seed=seed, options=OPTIONS)), range(4)))
        after = [video_calls(each.url) for each in tritons]
    assert all(now - then >= 2 for now, then in zip(after, before, strict=True)), (before, after)
    for chunk, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(chunk.actions, expected, atol=1e-5)


async def test_an_endpoint_that_comes_up_later_is_warmed_before_it_gets_plans(
    tritons: list[RunningTriton], tmp_path: Path
) -> None:
    """The gateway starts with an address at which nothing listens. Later a server answers there, and no robot asks."""
    early, late = tritons
    (port,) = free_ports(1)
    urls = f"{early.url},127.0.0.1:{port}"
    gateway = await asyncio.to_thread(start, tmp_path, "triton", "--triton-url", urls, "--set=triton.canary_s=0.5")
    try:
        before = video_calls(late.url)
        async with await asyncio.start_server(partial(relay, late.url), "127.0.0.1", port):
            await asyncio.to_thread(until, lambda: video_calls(late.url) >= before + 3, "warm-up plans run on it")
            with PlanClient(gateway.grpc) as client:
                await asyncio.to_thread(client.plan, observation(options=OPTIONS))
    finally:
        assert await asyncio.to_thread(gateway.stop) == 0


def test_a_killed_model_of_a_foreign_server_is_reloaded(gateway: Server, tritons: list[RunningTriton]) -> None:
    before = models_of(tritons[1].pid)["action_dit"]
    before.kill()
    with PlanClient(gateway.grpc) as client, concurrent.futures.ThreadPoolExecutor(4) as robots:
        list(robots.map(lambda seed: client.plan(observation(seed=seed, options=OPTIONS)), range(4)))

    def replaced() -> bool:
        return models_of(tritons[1].pid).get("action_dit", before) != before

    until(replaced, "the model of the second endpoint is reloaded")
    until(lambda: model_up(gateway, tritons[1].url, "action_dit"), "the model is up")


def test_plans_of_a_lost_server_move_to_another(gateway: Server, tritons: list[RunningTriton]) -> None:
    with PlanClient(gateway.grpc) as client, concurrent.futures.ThreadPoolExecutor(4) as robots:
        expected = client.plan(observation(seed=9, options=OPTIONS)).actions
        under_way = [robots.submit(client.plan, observation(seed=9, options=OPTIONS)) for _ in range(8)]
        tritons[1].kill()
        for plan in under_way:
            np.testing.assert_allclose(plan.result(timeout=300).actions, expected, atol=1e-5)
        until(lambda: not all(model_up(gateway, tritons[1].url, model) for model in MODELS), "a call finds them down")
        assert ready(gateway.http)
        np.testing.assert_allclose(client.plan(observation(seed=9, options=OPTIONS)).actions, expected, atol=1e-5)


def test_a_gateway_needs_no_torch(tritons: list[RunningTriton], tmp_path: Path) -> None:
    http, grpc = free_ports(2)
    flags = ["--backend", "triton", "--triton-url", tritons[0].url, f"--http-port={http}", f"--grpc-port={grpc}"]
    process = subprocess.Popen([sys.executable, "-c", NO_TORCH, "serve", *flags], cwd=tmp_path)
    try:
        until(lambda: process.poll() is not None or listening(http), "the gateway serves")
        with PlanClient(f"127.0.0.1:{grpc}") as client:
            assert client.plan(observation(options=OPTIONS)).actions.shape == (16, 7)
    finally:
        process.terminate()
        assert process.wait(300) == 0


def test_endpoints_that_serve_different_policies_make_the_gateway_unready(
    tritons: list[RunningTriton], other_policy: RunningTriton, tmp_path: Path
) -> None:
    http, grpc = free_ports(2)
    flags = ["--triton-url", f"{tritons[0].url},{other_policy.url}", f"--http-port={http}", f"--grpc-port={grpc}"]
    command = [sys.executable, "-m", "wavserve.cli", "serve", "--backend", "triton", *flags]
    log = tmp_path / "log"
    with log.open("w") as written:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=written)
    try:
        until(lambda: "not ready: models" in log.read_text(), "the gateway has warmed up")
        assert not ready(f"http://127.0.0.1:{http}")
    finally:
        process.terminate()
        process.wait(300)
    assert "serves another policy" in log.read_text()


def listening(port: int) -> bool:
    return answers(port) and ready(f"http://127.0.0.1:{port}")


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).is_success
    except httpx.TransportError:
        return False


def model_up(server: Server, url: str, model: str) -> bool:
    """Whether the gateway's metrics report the model as up."""
    name = f'wavserve_model_up{{device="{url}",model="{model}"}} '
    lines = httpx.get(f"{server.http}/metrics", timeout=10).text.splitlines()
    return next(float(line.removeprefix(name)) == 1 for line in lines if line.startswith(name))
