"""Planning on one backend by itself, without a service around it: what benchmarks compare backends by.

Called by `bench_triton` and `bench_serving`.
"""

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
from wavserve.scheduling.batcher import BatcherConfig
from wavserve.scheduling.ledger import Ticket

REPOSITORY = Path(__file__).parents[2] / "model_repository"
INSTRUCTION = "pick up the alphabet soup and place it in the basket"
SLOTS, SLICE = 32, 8


@dataclass
class Timed:
    """A backend whose calls are timed, one after another."""

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
class Subject:
    """Planning on one backend; its calls follow each other, so that a call's time is its own."""

    timed: Timed
    bundle: Bundle
    device: Device
    plans: list[float] = field(default_factory=list)

    async def plan(self, seed: int) -> np.ndarray:
        """From frames to normalised actions."""
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


def subject(bundle: Bundle, backend: Backend) -> Subject:
    timed = Timed(backend)
    limits = BatcherConfig(max_rows=SLICE, workers=1, depth=1, slice_s=60.0, arena_retry_s=0.05)
    device = Device.over(bundle.spec, timed, DeviceConfig(limits, SLICE, slices_in_flight=1, max_texts=4))
    device.batcher.start()
    return Subject(timed, bundle, device)


@contextlib.asynccontextmanager
async def on_local(bundle: Bundle) -> AsyncIterator[Subject]:
    config = RunnerConfig("cpu", "float32", None, SLOTS, lease_s=60.0, max_texts=4, compile="auto")
    made = subject(bundle, LocalBackend(load_runners(bundle, config).runners))  # calls follow each other
    yield made
    await made.device.batcher.close()
    await made.timed.close()


@contextlib.asynccontextmanager
async def on_triton(bundle: Bundle, on_traffic: Callable[..., None] = lambda *_: None) -> AsyncIterator[Subject]:
    name = new_name()
    own = {"WAVSERVE_BUNDLE__PATH": str(bundle.folder.resolve()), "WAVSERVE_ARENA__PREFIX": name}
    server = TritonServer(ServerConfig(name, REPOSITORY, {**os.environ, **own}, shm_bytes=4 << 20))
    backend = TritonBackend(await server.start(), on_traffic=on_traffic)
    try:
        await asyncio.gather(*(backend.load(model, 600.0) for model in MODELS))
        made = subject(bundle, backend)
        yield made
        await made.device.batcher.close()
    finally:
        await backend.close()
        await server.stop()
