"""Looking at the imagined future of a plan (paper figure 9): denoise, decode, and go on from there.

Called by the policy when a request asks for pictures. Acting never needs this: the video is not denoised for actions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wavserve.core.types import Picture, Plan
from wavserve.planning.model_calls import Job
from wavserve.planning.perception import Perception
from wavserve.planning.planner import Planner
from wavserve.policy.sessions import FrameMemory

Frames = dict[str, NDArray[np.uint8]]


async def imagine_frames(
    planner: Planner, perception: Perception, job: Job, plan: Plan, chunks: int
) -> Mapping[str, tuple[Picture, ...]]:
    """Camera -> future frames of the chosen plan, `chunks` times what the models imagine at once.

    Autoregressive: after each chunk its last frame is encoded and enters the frame memory, as a real one would.
    """
    shown: list[Frames] = []
    with job.progress.measure("pictures"):
        for chunk in range(chunks):
            if chunk:
                job = await _continued(perception, job, shown[-1])
            latents = await planner.picture(job, plan.video, chunk)
            shown.append(await perception.show(latents, job.ticket))
        return await asyncio.to_thread(_painted, shown)


def _painted(shown: list[Frames]) -> dict[str, tuple[Picture, ...]]:
    return {camera: tuple(as_png(frame) for frames in shown for frame in frames[camera]) for camera in shown[0]}


def as_png(frame: NDArray[np.uint8]) -> Picture:
    """A frame `[height, width, 3]` RGB as PNG, which loses nothing."""
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    height, width, _ = frame.shape
    return Picture(height, width, buffer.getvalue())


async def _continued(perception: Perception, job: Job, frames: Frames) -> Job:
    latents = await perception.see({camera: video[-1] for camera, video in frames.items()}, job.ticket)
    memory = FrameMemory(job.context.memory, 0).observe(latents, 1, threshold=1)
    return replace(job, context=replace(job.context, memory=memory.frames))
