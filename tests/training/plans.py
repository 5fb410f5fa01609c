"""Plans of a bundle for held-out observations: by a service's own code, and by the code that trains."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo
from einops import rearrange
from torch import Tensor

from wavserve.app.in_process import InProcessPolicy
from wavserve.app.settings import Settings
from wavserve.bundle import bundle
from wavserve.core.messages import EncodedImage, Observation
from wavserve.core.noise import FINAL, Stream, draw
from wavserve.core.normalise import Normaliser
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Array
from wavserve.models.networks.encoder import TextCoder
from wavserve.models.networks.plain import MASKED
from wavserve.models.weights import weights
from wavserve.training.action_loss import PlanNoise, planned
from wavserve.training.held_out import HeldOut
from wavserve.training.latents import encode_pictures
from wavserve.training.network import Network
from wavserve.training.samples import Batch, Samples, padded


def served_actions(folder: Path, held_out: HeldOut) -> Array:
    """`[n, T, A]` of a policy in this process: each the first plan of a session, with its index as seed."""
    backend = {"kind": "local", "compile": "off", "dtype": "float32"}
    settings = Settings.model_validate({"bundle": {"path": str(folder)}, "backend": backend})
    with contextlib.closing(InProcessPolicy(settings)) as policy:
        return np.stack([policy.plan(_observation(held_out, row)).actions for row in range(len(held_out))])


def _observation(held_out: HeldOut, row: int) -> Observation:
    images = tuple(EncodedImage(camera, "jpeg", jpeg) for camera, jpeg in held_out.jpegs[row].items())
    return Observation(
        images=images,
        state=tuple(held_out.state[row].tolist()),
        instruction=held_out.instructions[row],
        seed=row,
        options={"mode": "off"},
    )


@torch.inference_mode()
def trained_actions(folder: Path, held_out: HeldOut) -> Array:
    """The same by the forwards that the losses use, with the noise of the same names."""
    spec = bundle.load(folder).spec
    network = Network.of(spec, weights.load(folder / bundle.TRANSFORMER, spec.model), "cpu")
    vae = AutoencoderKLLTXVideo.from_pretrained(folder / bundle.VAE, torch_dtype=torch.float32)
    coder, normaliser = TextCoder(folder, spec), Normaliser(spec)
    found = []
    for row, (state, jpegs) in enumerate(zip(held_out.state, held_out.jpegs, strict=True)):
        latents = encode_pictures(vae, {camera: [jpeg] for camera, jpeg in jpegs.items()})
        embedding = torch.from_numpy(coder.encode([held_out.instructions[row].encode()])[0])
        history = torch.from_numpy(normaliser.history(state))
        batch = Batch(_seen(spec, latents, history[None, spec.action.vector.dim :]), padded([embedding], MASKED))
        output = planned(network, batch, _noise(spec, seed=row))[0].numpy()
        found.append(normaliser.actions(output, state))
    return np.stack(found)


def _seen(spec: PolicySpec, latents: Tensor, state: Tensor) -> Samples:
    """A sample of which only what a plan sees is known."""
    num, unknown = spec.num_value_tokens, torch.zeros(1)
    values = torch.zeros(1, num, spec.model.value.in_channels)
    actions = torch.zeros(1, spec.chunk, spec.model.action.in_channels)
    return Samples(latents, torch.zeros_like(latents), state, actions, unknown, values, unknown)


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
