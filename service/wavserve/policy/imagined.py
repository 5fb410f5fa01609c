"""The imagined future of a plan as frames (paper figure 9): denoise, decode, and go on from the last frame.

Acting never needs this: the video is not denoised for actions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wavserve.core.messages import EncodedImage
from wavserve.core.types import Gaussian
from wavserve.planning.model_calls import ModelCalls, PlanJob
from wavserve.planning.perception import Perception
from wavserve.policy.sessions import FrameMemory

Frames = dict[str, NDArray[np.uint8]]


async def imagine_frames(
    calls: ModelCalls, perception: Perception, job: PlanJob, video: Gaussian
) -> Mapping[str, tuple[EncodedImage, ...]]:
    """Camera -> future frames as PNG, `job.imagine_chunks` times what one call imagines. `video`: the chosen plan's.

    Autoregressive: the last frame of each chunk is encoded and enters the frame memory, as a real frame would.
    """
    chunks: list[Frames] = []
    with job.progress.measure("pictures"):
        for chunk in range(job.imagine_chunks):
            if chunk:
                job = await _continued(perception, job, chunks[-1])
            latents = await calls.denoise(job, video, chunk)
            chunks.append(await perception.decode_video(latents, job.ticket))
        return await asyncio.to_thread(_encode_all, chunks)


def encode_png(camera: str, frame: NDArray[np.uint8]) -> EncodedImage:
    """A frame `[height, width, 3]` RGB as PNG, which loses nothing."""
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    height, width, channels = frame.shape
    return EncodedImage(camera, "png", buffer.getvalue(), height, width, channels)


def _encode_all(chunks: list[Frames]) -> dict[str, tuple[EncodedImage, ...]]:
    return {
        camera: tuple(encode_png(camera, frame) for frames in chunks for frame in frames[camera])
        for camera in chunks[0]
    }


async def _continued(perception: Perception, job: PlanJob, frames: Frames) -> PlanJob:
    latents = await perception.encode_images({camera: video[-1] for camera, video in frames.items()}, job.ticket)
    # a threshold of one step makes the frame a memory frame at once
    return replace(job, memory=FrameMemory(job.memory, 0).observe(latents, 1, threshold=1).frames)
