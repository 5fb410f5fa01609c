"""Several calls at a time in one process give the same results as one after another."""

from __future__ import annotations

import asyncio

import numpy as np

from tests.backends.calls import denoise_inputs, seeded
from wavserve.backends.local import LocalBackend
from wavserve.bundle.bundle import Bundle
from wavserve.core.types import Tensors
from wavserve.models.runners.loading import RunnerConfig, load_runners

ROBOTS = 6


def inputs_of(bundle: Bundle, robot: int) -> Tensors:
    """Every robot has its own text. There are fewer cached texts and slots than calls, so robots reuse each other's."""
    base = denoise_inputs(bundle.spec)
    embedding = seeded((1, 3 + robot, bundle.spec.model.video.caption_channels), robot)
    return base | {"text_key": np.full((1, 32), robot, np.uint8), "embedding": embedding}


async def imagine(backend: LocalBackend, inputs: Tensors) -> np.ndarray:
    """Fills a slot and releases it; returns its handle."""
    call = {name: value for name, value in inputs.items() if name != "flow_steps"}
    imagined = await backend.run("imagine", call | {"video_steps": np.ones((1, 1), np.int32)})
    await backend.run("release", {"handles": imagined["handles"]})
    return imagined["handles"][0, 0]


async def rounds(backend: LocalBackend, bundle: Bundle, at_a_time: int) -> list[np.ndarray]:
    """Each robot's latents, with at most `at_a_time` robots calling at a time."""
    turns = asyncio.Semaphore(at_a_time)
    return await asyncio.gather(*(rounds_of(backend, inputs_of(bundle, robot), turns) for robot in range(ROBOTS)))


async def rounds_of(backend: LocalBackend, inputs: Tensors, turns: asyncio.Semaphore) -> np.ndarray:
    async with turns:
        handles = [tuple(await imagine(backend, inputs)) for _ in range(4)]
        assert len(set(handles)) == len(handles)
        return (await backend.run("denoise", inputs))["latents"]


async def test_calls_at_the_same_time_do_not_disturb_each_other(tiny: Bundle) -> None:
    config = RunnerConfig("cpu", "float32", 1, num_slots=ROBOTS, lease_s=1e9, max_texts=2, workers=3)
    loaded = load_runners(tiny, config)
    backend = LocalBackend(loaded.runners, loaded.workers)
    try:
        alone = await rounds(backend, tiny, at_a_time=1)
        together = await rounds(backend, tiny, at_a_time=ROBOTS)
    finally:
        await backend.close()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert loaded.workers == 3
    assert loaded.arena.book.used == 0
