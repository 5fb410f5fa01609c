"""Plans of a bundle for held-out observations: by a service's own code, and by the code that trains."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from wavserve.app.in_process import InProcessPolicy
from wavserve.app.settings import Settings
from wavserve.bundle import bundle
from wavserve.core.messages import EncodedImage, Observation
from wavserve.core.noise import FINAL, Stream, draw
from wavserve.core.normalise import Normaliser
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Array
from wavserve.training.action_loss import PlanNoise, planned
from wavserve.training.held_out import HeldOut
from wavserve.training.observed import network_of, observed


def first(held_out: HeldOut, num: int) -> HeldOut:
    """The first observations."""
    return HeldOut(**{each.name: getattr(held_out, each.name)[:num] for each in fields(HeldOut)})


def served_actions(folder: Path, held_out: HeldOut, num_video_steps: int = 1) -> Array:
    """`[n, T, A]` of a policy in this process: each the first plan of a session, with its index as seed."""
    backend = {"kind": "local", "compile": "off", "dtype": "float32"}
    settings = Settings.model_validate({"bundle": {"path": str(folder)}, "backend": backend})
    with contextlib.closing(InProcessPolicy(settings)) as policy:
        asked = [_observation(held_out, row, num_video_steps) for row in range(len(held_out))]
        return np.stack([policy.plan(each).actions for each in asked])


def _observation(held_out: HeldOut, row: int, num_video_steps: int) -> Observation:
    images = tuple(EncodedImage(camera, "jpeg", jpeg) for camera, jpeg in held_out.jpegs[row].items())
    return Observation(
        images=images,
        state=tuple(held_out.state[row].tolist()),
        instruction=held_out.instructions[row],
        seed=row,
        options={"mode": "off", "num_video_steps": num_video_steps},
    )


@torch.inference_mode()
def trained_actions(folder: Path, held_out: HeldOut, num_video_steps: int = 1) -> Array:
    """The same by the forwards that the losses use, with the noise of the same names."""
    spec = bundle.load_spec(folder)
    network, normaliser = network_of(folder, spec), Normaliser(spec)
    found = []
    for row, batch in enumerate(observed(folder, spec, held_out)):
        output = planned(network, batch, _noise(spec, seed=row), num_video_steps)[0].numpy()
        found.append(normaliser.actions(output, held_out.state[row]))
    return np.stack(found)


def _noise(spec: PolicySpec, seed: int) -> PlanNoise:
    """Of the first plan of a session."""
    latent, channels = spec.latent, spec.model.video.in_channels
    shapes = {
        Stream.VIDEO: (spec.num_views, channels, 1, latent.height, latent.width),
        Stream.VALUE: (spec.num_value_tokens, spec.model.value.in_channels),
        Stream.ACTION: (spec.chunk, spec.model.action.in_channels),
    }
    video, value, action = (
        torch.from_numpy(draw((seed, 0), stream, FINAL, 0, shape)) for stream, shape in shapes.items()
    )
    return PlanNoise(rearrange(video, "v c 1 h w -> 1 v (h w) c"), value[None, None], action[None, None])
