"""A policy so small that a plan takes microseconds, and the service around a fake backend."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from tests.examples import example_policy
from wavserve.backends.fake import FakeBackend
from wavserve.core.errors import BrokenLimit
from wavserve.core.spec import CameraSpec, ExpertConfig, LatentSpec, ModelConfig, PlannerConfig, PolicySpec, VideoConfig
from wavserve.core.types import Clock, PlanRequest, TextEmbedding
from wavserve.models.arena.book import ArenaBook
from wavserve.planning.device import Device, DeviceConfig
from wavserve.planning.model_calls import PlanJob
from wavserve.planning.planner import Planner
from wavserve.planning.proposal import NamedNoise
from wavserve.policy.parts import Keep, OnPlan, PolicyParts
from wavserve.policy.placement import Placement
from wavserve.policy.policy import Policy
from wavserve.policy.sessions import MemorySessions, SessionStore
from wavserve.scheduling.admission import Admission
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.batcher_config import BatcherConfig

CLOSE_S = 10.0
"""How long a rig may take to close; a call that a failed test holds up must not hang the run."""


def example_spec() -> PolicySpec:
    return example_policy(
        state_dim=3,
        action_dim=2,
        cameras=(CameraSpec("top", 8, 8), CameraSpec("wrist", 8, 8)),
        chunk=6,
        control_hz=10.0,
        model=ModelConfig(
            VideoConfig(3, 3, 1, 1, 8, caption_channels=2), ExpertConfig(4, 4, 1, 8, 57), ExpertConfig(5, 5, 1, 8, 54)
        ),
        latent=LatentSpec(num_memory_frames=4, num_future_frames=2, height=2, width=2, spatial_ratio=4),
        planner=PlannerConfig(
            num_iterations=2,
            num_video_samples=7,
            num_value_samples=3,
            num_flow_steps=2,
            video_elite_fraction=0.5,
            value_elite_fraction=0.25,
        ),
    )


def example_request(spec: PolicySpec, seed: int = 1, **changes: object) -> PlanRequest:
    rng = np.random.default_rng(seed)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in spec.cameras}
    state = rng.uniform(-1, 1, spec.state.dim).astype(np.float32)
    request = PlanRequest(images=images, state=state, instruction=f"task {seed}", seed=seed)
    return replace(request, **changes)  # type: ignore[arg-type]


def example_job(spec: PolicySpec, seed: int, **config: object) -> PlanJob:
    rng = np.random.default_rng(seed)
    latent = spec.latent
    memory = (spec.num_views, spec.model.video.in_channels, latent.num_memory_frames, latent.height, latent.width)
    text = TextEmbedding(bytes([seed % 256]) * 32, rng.standard_normal((4, 2), dtype=np.float32))
    frames, history = rng.standard_normal(memory, dtype=np.float32), rng.standard_normal(5, dtype=np.float32)
    changed = replace(spec.planner, **config)  # type: ignore[arg-type]
    return PlanJob(frames, text, history, changed, NamedNoise((seed, 0)))


async def at_once(verb: str) -> None:
    """A `before` that neither waits nor fails."""


@dataclass(frozen=True)
class RigOptions:
    slots: int = 64
    slice_size: int = 3
    in_flight: int = 2
    max_rows: int = 16
    workers: int = 2
    depth: int = 2
    slice_s: float = 60.0
    max_arena_wait_s: float = math.inf
    max_plans: int = 16
    max_bytes: float = math.inf
    clock: Clock = time.monotonic
    unix_clock: Clock = time.time
    before: Callable[[str], Awaitable[None]] = at_once
    ready: bool = True
    keep: Keep | None = None
    store: Callable[[MemorySessions], SessionStore] = lambda sessions: sessions
    """wraps the store that the policy sees"""
    on_plan: OnPlan = lambda *_: None
    on_broken: Callable[[str, BrokenLimit], None] = lambda *_: None
    on_unusual: Callable[[str], None] = lambda name: None
    spec: PolicySpec = field(default_factory=example_spec)


@dataclass(frozen=True)
class Rig:
    """A fake backend with everything above it up to the policy."""

    spec: PolicySpec
    backend: FakeBackend
    device: Device
    sessions: MemorySessions
    policy: Policy

    @property
    def batcher(self) -> Batcher:
        return self.device.batcher

    @property
    def planner(self) -> Planner:
        return self.device.planner

    @property
    def admission(self) -> Admission:
        return self.device.planner.admission


MakeRig = Callable[[RigOptions], Awaitable[Rig]]


def example_backend(options: RigOptions) -> FakeBackend:
    return FakeBackend(options.spec, ArenaBook(options.slots, lease_s=1e9), options.before)


def example_device(backend: FakeBackend, options: RigOptions) -> Device:
    """A device over a backend; its batcher is not started."""
    limits = BatcherConfig(
        options.max_rows,
        options.workers,
        options.depth,
        options.slice_s,
        arena_retry_s=0.001,
        max_arena_wait_s=options.max_arena_wait_s,
    )
    config = DeviceConfig(limits, options.slice_size, options.in_flight, max_texts=8)
    return Device.over(options.spec, backend, config, clock=options.clock)


@asynccontextmanager
async def rigged(options: RigOptions) -> AsyncIterator[Rig]:
    """A rig whose batcher runs until the block ends."""
    spec, backend = options.spec, example_backend(options)
    device = example_device(backend, options)
    sessions = MemorySessions(ttl_s=60.0, max_sessions=4, clock=options.clock)
    placement = Placement([device], wait_s=5.0)
    parts = PolicyParts(
        spec,
        "fake",
        placement,
        options.store(sessions),
        options.max_plans,
        "0",
        max_bytes=options.max_bytes,
        keep=options.keep,
        on_plan=options.on_plan,
        on_broken=options.on_broken,
        on_unusual=options.on_unusual,
        clock=options.clock,
        unix_clock=options.unix_clock,
    )
    policy = Policy(parts)
    policy.warm = options.ready
    device.batcher.start()
    try:
        yield Rig(spec, backend, device, sessions, policy)
    finally:
        async with asyncio.timeout(CLOSE_S):
            await device.batcher.close()
