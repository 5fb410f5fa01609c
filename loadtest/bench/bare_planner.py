"""The planner on one backend, without a service around it, with the time of every backend call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wavserve.backends.base import Backend
from wavserve.backends.local import LocalBackend
from wavserve.backends.triton.client import TritonBackend
from wavserve.backends.triton.server import ServerConfig, TritonServer, new_name
from wavserve.bundle.bundle import Bundle
from wavserve.core.types import Tensors
from wavserve.core.verbs import MODELS
from wavserve.models.runners.loading import RunnerConfig, load_runners
from wavserve.planning.device import Device, DeviceConfig
from wavserve.planning.model_calls import PlanJob
from wavserve.planning.proposal import NamedNoise
from wavserve.scheduling.batcher_config import BatcherConfig
from wavserve.scheduling.ledger import Ticket

REPOSITORY = Path(__file__).parents[2] / "model_repository"
INSTRUCTION = "pick up the alphabet soup and place it in the basket"
SLOTS, SLICE = 32, 8


@dataclass
class TimedBackend:
    """A backend that records each call as (verb, seconds), in order."""

    backend: Backend
    calls: list[tuple[str, float]] = field(default_factory=list)

    async def run(self, verb: str, inputs: Tensors, deadline: float = float("inf")) -> Tensors:
        started = time.perf_counter()
        outputs = await self.backend.run(verb, inputs, deadline)
        self.calls.append((verb, time.perf_counter() - started))
        return outputs

    async def close(self) -> None:
        await self.backend.close()


@dataclass
class BarePlanner:
    """The planner on one backend. Its calls run one at a time, so a call's time includes no wait for another call."""

    timed: TimedBackend
    bundle: Bundle
    device: Device
    plans: list[float] = field(default_factory=list)
    """seconds of each plan"""

    async def plan(self, seed: int) -> np.ndarray:
        """Normalised actions `[T, action channels]` of a plan on seeded random frames."""
        spec = self.bundle.spec
        rng = np.random.default_rng(seed)
        images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in spec.cameras}
        started = time.perf_counter()
        text = await self.device.perception.encode_text(INSTRUCTION, Ticket())
        latents = await self.device.perception.encode_images(images, Ticket())
        memory = np.repeat(latents[:, :, None], spec.latent.num_memory_frames, axis=2)
        history = np.zeros(spec.model.action.in_channels, np.float32)
        job = PlanJob(memory, text, history, spec.planner, NamedNoise((seed, 0)))
        plan = await self.device.planner.plan(job)
        self.plans.append(time.perf_counter() - started)
        return plan.actions


def bare_planner(bundle: Bundle, backend: Backend) -> BarePlanner:
    timed = TimedBackend(backend)
    limits = BatcherConfig(max_rows=SLICE, workers=1, depth=1, slice_s=60.0, arena_retry_s=0.05)
    device = Device.over(bundle.spec, timed, DeviceConfig(limits, SLICE, slices_in_flight=1, max_texts=4))
    device.batcher.start()
    return BarePlanner(timed, bundle, device)


@contextlib.asynccontextmanager
async def on_local(bundle: Bundle) -> AsyncIterator[BarePlanner]:
    """A planner on models in this process."""
    config = RunnerConfig("cpu", "float32", None, SLOTS, lease_s=60.0, max_texts=4, compile="auto")
    planner = bare_planner(bundle, LocalBackend(load_runners(bundle, config).runners))
    yield planner
    await planner.device.batcher.close()
    await planner.timed.close()


@contextlib.asynccontextmanager
async def on_triton(bundle: Bundle, on_traffic: Callable[..., None] = lambda *_: None) -> AsyncIterator[BarePlanner]:
    """A planner on an embedded Triton server, which stops at the end of the block."""
    name = new_name()
    own = {"WAVSERVE_BUNDLE__PATH": str(bundle.folder.resolve()), "WAVSERVE_ARENA__PREFIX": name}
    server = TritonServer(ServerConfig(name, REPOSITORY, {**os.environ, **own}, shm_bytes=4 << 20))
    backend = TritonBackend(await server.start(), on_traffic=on_traffic)
    try:
        await asyncio.gather(*(backend.load(model, 600.0) for model in MODELS))
        planner = bare_planner(bundle, backend)
        yield planner
        await planner.device.batcher.close()
    finally:
        await backend.close()
        await server.stop()
