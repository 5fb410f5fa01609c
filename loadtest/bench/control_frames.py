"""What the robots of the control benchmark see and are: recorded frames, a fixed pose, the policy's own contract."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from loadtest.robots.frames import Frames
from wavserve.clients.images import encode_images
from wavserve.clients.robot import RobotDescription
from wavserve.core.control import ControlObservation
from wavserve.core.messages import PolicyInfo
from wavserve.core.resize import Pixels
from wavserve.core.spec import CameraSpec
from wavserve.wire.control import client_message

OPTIONS: Mapping[str, str] = {"mode": "off"}
"""Planner options of every request: one plan without planning iterations."""
INSTRUCTION = "pick up the alphabet soup and place it in the basket"
SIZES = (128, 256)
"""Heights and widths of the pictures whose bytes are counted: `tiny-piper` takes 128, `piper` takes 256."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Recorded camera frames, 256 x 256, for the cameras of a policy."""

    frames: tuple[tuple[Pixels, ...], ...]

    @classmethod
    def recorded(cls) -> Pictures:
        return cls(
            tuple(tuple(_pixels(image.data) for image in seen.images) for seen in Frames.recorded().observations)
        )

    def at(self, number: int, cameras: Sequence[str]) -> dict[str, Pixels]:
        """camera -> picture. A policy with more cameras than the recording sees its frames again."""
        frame = self.frames[number % len(self.frames)]
        return {name: frame[index % len(frame)] for index, name in enumerate(cameras)}


def robot(policy: PolicyInfo, robot_id: str) -> RobotDescription:
    """A robot that fits the policy."""
    orientations = {camera.name: camera.orientation for camera in policy.cameras}
    return RobotDescription.as_declared(policy, robot_id, orientations)


def pose(policy: PolicyInfo) -> tuple[float, ...]:
    """A state `[S]` in the middle of the limits of the action; 0 in a dimension without one."""
    limits = policy.action.limits.position or (None,) * len(policy.state.names)
    return tuple(0.0 if each is None else sum(each) / 2 for each in limits)


def observation_bytes(pictures: Pictures, policy: PolicyInfo) -> dict[str, Any]:
    """Mean bytes of an observation on the stream, as JPEG and raw, by size of its pictures; and the time to encode."""
    names = [camera.name for camera in policy.cameras]
    found: dict[str, Any] = {}
    for size in SIZES:
        cameras = [CameraSpec(name, size, size, "area") for name in names]
        jpeg, raw = (_mean_bytes(pictures, policy, cameras, quality) for quality in (95, None))
        found[f"{len(names)} x {size}x{size}"] = {
            "jpeg": round(jpeg[0]),
            "raw": round(raw[0]),
            "raw_over_jpeg": round(raw[0] / jpeg[0], 2),
            "resize_and_encode_ms": round(jpeg[1] * 1e3, 2),
        }
    return found


def _mean_bytes(
    pictures: Pictures, policy: PolicyInfo, cameras: Sequence[CameraSpec], jpeg_quality: int | None
) -> tuple[float, float]:
    """Bytes of an observation, and the seconds to encode its pictures: means over all frames."""
    sizes, seconds = [], []
    for number in range(len(pictures.frames)):
        seen = pictures.at(number, [camera.name for camera in cameras])
        began = time.perf_counter()
        images = encode_images(seen, cameras, jpeg_quality)
        seconds.append(time.perf_counter() - began)
        observation = ControlObservation(
            images=images, state=pose(policy), instruction="", sequence=number, epoch=1, options=OPTIONS
        )
        sizes.append(client_message(observation).ByteSize())
    return float(np.mean(sizes)), float(np.mean(seconds))


def _pixels(png: bytes) -> Pixels:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))
