"""Looking at the imagined future of a plan (paper figure 9): denoise, decode, and go on from there.

Called by the policy when a request asks for pictures. Acting never needs this: the video is not denoised for actions.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wavserve.calls import Job
from wavserve.perception import Perception
from wavserve.planner import Planner
from wavserve.sessions import FrameMemory
from wavserve.types import Plan

Frames = dict[str, NDArray[np.uint8]]


async def imagine_frames(planner: Planner, perception: Perception, job: Job, plan: Plan, chunks: int) -> Frames:
    """Camera -> future frames `[chunks * frames, height, width, 3]` of the chosen plan.

    Autoregressive: after each chunk its last frame is encoded and enters the frame memory, as a real one would.
    """
    shown: list[Frames] = []
    with job.progress.measure("pictures"):
        for chunk in range(chunks):
            if chunk:
                job = await _continued(perception, job, shown[-1])
            latents = await planner.picture(job, plan.video, chunk)
            shown.append(await perception.show(latents, job.ticket))
    return {camera: np.concatenate([frames[camera] for frames in shown]) for camera in shown[0]}


async def _continued(perception: Perception, job: Job, frames: Frames) -> Job:
    latents = await perception.see({camera: video[-1] for camera, video in frames.items()}, job.ticket)
    memory = FrameMemory(job.context.memory, 0).observe(latents, 1, threshold=1)
    return replace(job, context=replace(job.context, memory=memory.frames))
