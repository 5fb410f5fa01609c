"""Checks a folder's fixtures on every path we have: plain models, fast models, and the planner that serves robots.

Anyone with the released model can record such a folder and check our models with it. Nothing is assumed about the
model's configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.backends.local import LocalBackend
from wavserve.core.noise import FINAL, Stream
from wavserve.core.spec import ActionSpec, CameraSpec, Mode, NormSpec, PlannerConfig, PolicySpec, VectorSpec
from wavserve.core.types import Array, Plan, TextEmbedding
from wavserve.models.networks.plain import Draws
from wavserve.models.parity.fixtures import (
    Check,
    Fixture,
    FixtureConfig,
    planner_config,
    read_draws,
    read_fixture,
    read_scene,
)
from wavserve.models.parity.parity import check_models
from wavserve.models.parity.subject import Subject, read_subject, unpadded
from wavserve.models.runners.loading import arena_for, transformer_runners
from wavserve.planning.device import Device, DeviceConfig
from wavserve.planning.model_calls import PlanJob
from wavserve.scheduling.batcher_config import BatcherConfig

PATH = "planner"
SLICE = 2
NUM_SLOTS = 5


@dataclass(frozen=True, slots=True)
class GivenNoise:
    """The recorded draws of one planning request, used instead of named noise."""

    draws: Draws
    key: tuple[int, int] = (0, 0)
    explicit: bool = True

    def draw(self, stream: Stream, iteration: int, samples: Sequence[int], shape: tuple[int, ...]) -> Array:
        draws = self.draws
        match stream, iteration:
            case Stream.ACTION, _:
                chosen = draws.action[None]
            case Stream.VIDEO, _:
                chosen = draws.final_video[None] if iteration == FINAL else draws.video[iteration][list(samples)]
            case _:
                chosen = draws.final_value[None] if iteration == FINAL else draws.value[iteration][list(samples)]
        given: Array = chosen.numpy()
        if given.shape != (len(samples), *shape):
            raise ValueError(f"recorded {stream.name} noise: expected {(len(samples), *shape)}, got {given.shape}")
        return given


def run(folder: Path) -> list[Check]:
    """Makes every check of a folder laid out like `tests/parity`. Raises BundleError when it cannot be read."""
    return check_models(folder) + check_planner(folder)


def check_planner(folder: Path, device: str = "cpu") -> list[Check]:
    """Runs the planning fixtures 08 and 09 through planner, batcher, arena and runners on a device, slice by slice."""
    inputs = read_fixture(folder, "07_plan_inputs")
    cases: list[tuple[str, Mode, bool]] = [
        ("08_plan_official", "published", False),
        ("09_plan_corrected", "paper", False),
        ("09_plan_corrected", "paper", True),
    ]
    checks: list[Check] = []
    for name, mode, per_view in cases:
        fixture = read_fixture(folder, name)
        if inputs is None or fixture is None or (per_view and "per_view.action" not in fixture.tensors):
            continue
        subject, config = read_subject(folder, device), planner_config(fixture, mode, per_view)
        plan = asyncio.run(_plan(subject, inputs, config, device))
        checks += [_check(name, *pair) for pair in _compared(fixture, plan, config, subject.config)]
    return checks


async def _plan(subject: Subject, inputs: Fixture, config: PlannerConfig, on: str) -> Plan:
    spec = _spec(subject.config, config)
    runners = transformer_runners(subject.models, spec, arena_for(spec, NUM_SLOTS, on), max_texts=1)
    backend = LocalBackend(runners)
    limits = BatcherConfig(max_rows=2 * SLICE, workers=1, depth=2, slice_s=60.0, arena_retry_s=0.01)
    device = Device.over(spec, backend, DeviceConfig(limits, SLICE, slices_in_flight=2, max_texts=1))
    scene = read_scene(inputs)
    text = TextEmbedding(bytes(32), unpadded(scene.text, scene.text_mask).numpy())
    noise = GivenNoise(read_draws(inputs, subject.config))
    job = PlanJob(scene.memory.numpy(), text, scene.history.numpy(), config, noise)
    device.batcher.start()
    try:
        return await device.planner.plan(job)
    finally:
        await device.batcher.close()
        await backend.close()


def _compared(
    fixture: Fixture, plan: Plan, config: PlannerConfig, model: FixtureConfig
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Name, our value and the recorded one of all that the planner reports. Video Gaussians: generated frames only."""
    prefix = "per_view." if config.per_view_noise else ""
    snr = f"{prefix}snr" if config.mode == "paper" else "snr_as_attributed"
    yield f"{prefix}action", plan.actions[None], fixture[f"{prefix}action"].numpy()
    for k, record in enumerate(plan.iterations):
        yield f"{snr}.{k}", record.snr, fixture[f"{snr}.{k}"].numpy()
        for name in ("video_elites", "value_elites"):
            yield f"{prefix}{name}.{k}", np.array(getattr(record, name)), fixture[f"{prefix}{name}.{k}"].numpy()
    last = "" if config.per_view_noise else f".{len(plan.iterations) - 1}"
    first = model.latent.num_memory_frames
    for part in ("mean", "std"):
        video = fixture[f"{prefix}video_{part}{last}"].numpy()[..., first:, :, :]
        ours = getattr(plan.video, part)
        yield f"{prefix}video_{part}{last}", ours if config.per_view_noise else ours[0], video
        yield f"{prefix}value_{part}{last}", getattr(plan.value, part), fixture[f"{prefix}value_{part}{last}"].numpy()


def _check(fixture: str, tensor: str, ours: NDArray[Any], theirs: NDArray[Any]) -> Check:
    if theirs.dtype.kind == "i":  # elites, as sets
        return Check(fixture, PATH, tensor, float(len(set(ours.tolist()) ^ set(theirs.tolist()))), tolerance=0.0)
    return Check(fixture, PATH, tensor, float(np.abs(ours - theirs).max()))


def _spec(config: FixtureConfig, planner: PlannerConfig) -> PolicySpec:
    """A policy with the fixtures' sizes. Its facts about robots are placeholders that nothing reads."""
    latent, channels = config.latent, config.model.action.in_channels
    height, width = latent.height * latent.spatial_ratio, latent.width * latent.spatial_ratio
    return PolicySpec(
        name="parity",
        untrained=True,
        cameras=tuple(CameraSpec(f"view{v}", height, width) for v in range(config.num_views)),
        state=_vector(1),
        action=ActionSpec(_vector(channels - 1)),
        chunk=config.action_chunk,
        control_hz=1.0,
        memory_threshold=1,
        max_instruction_bytes=1,
        max_prompt_tokens=config.num_prompt,
        model=config.model,
        latent=latent,
        planner=planner,
        value_chunk=config.value_chunk,
    )


def _vector(dim: int) -> VectorSpec:
    return VectorSpec(("",) * dim, ("",) * dim, NormSpec("meanstd", (0.0,) * dim, (1.0,) * dim))
