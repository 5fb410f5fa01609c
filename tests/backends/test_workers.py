"""Several calls at a time in one process: plans come out as they do one after another."""

from __future__ import annotations

import asyncio

import numpy as np

from tests.backends.rig import denoise_inputs, seeded
from wavserve.backends.local import LocalBackend
from wavserve.bundle.bundle import Bundle
from wavserve.core.types import Tensors
from wavserve.models.runners.loading import RunnerConfig, load_runners

ROBOTS = 6


def inputs_of(bundle: Bundle, robot: int) -> Tensors:
    """Texts and slots are fewer than robots times calls: they change hands meanwhile."""
    base = denoise_inputs(bundle.spec)
    embedding = seeded((1, 3 + robot, bundle.spec.model.video.caption_channels), robot)
    return base | {"text_key": np.full((1, 32), robot, np.uint8), "embedding": embedding}


async def imagine(backend: LocalBackend, inputs: Tensors) -> np.ndarray:
    """A slot filled and given back; its handle."""
    call = {name: value for name, value in inputs.items() if name != "flow_steps"}
    made = await backend.run("imagine", call | {"video_steps": np.ones((1, 1), np.int32)})
    await backend.run("release", {"handles": made["handles"]})
    return made["handles"][0, 0]


async def rounds(backend: LocalBackend, bundle: Bundle, at_a_time: int) -> list[np.ndarray]:
    robots = asyncio.Semaphore(at_a_time)

    async def robot(number: int) -> np.ndarray:
        async with robots:
            inputs = inputs_of(bundle, number)
            handles = [tuple(await imagine(backend, inputs)) for _ in range(4)]
            assert len(set(handles)) == len(handles)
            return (await backend.run("denoise", inputs))["latents"]

    return await asyncio.gather(*(robot(number) for number in range(ROBOTS)))


def test_calls_at_the_same_time_do_not_disturb_each_other(tiny: Bundle) -> None:
    config = RunnerConfig("cpu", "float32", 1, num_slots=ROBOTS, lease_s=1e9, max_texts=2, workers=3)
    loaded = load_runners(tiny, config)
    backend = LocalBackend(loaded.runners, loaded.workers)

    async def both() -> tuple[list[np.ndarray], list[np.ndarray]]:
        try:
            return await rounds(backend, tiny, at_a_time=1), await rounds(backend, tiny, at_a_time=ROBOTS)
        finally:
            await backend.close()

    alone, together = asyncio.run(both())
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert loaded.workers == 3
    assert loaded.arena.book.used == 0
