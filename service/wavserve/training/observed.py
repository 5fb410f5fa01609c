"""A bundle's network, and held-out observations as it sees them. Knows no losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor

from wavserve.bundle import bundle
from wavserve.core.normalise import Normaliser
from wavserve.core.spec import PolicySpec
from wavserve.models.networks.encoder import TextCoder
from wavserve.models.networks.plain import MASKED
from wavserve.models.weights import weights
from wavserve.training.held_out import HeldOut
from wavserve.training.latents import encode_pictures
from wavserve.training.network import Network
from wavserve.training.samples import Batch, Samples, padded


def network_of(folder: Path, spec: PolicySpec) -> Network:
    """The transformers of a bundle, on the CPU. Raises BundleError."""
    return Network.of(spec, weights.load(folder / bundle.TRANSFORMER, spec.model), "cpu")


@torch.inference_mode()
def observed(folder: Path, spec: PolicySpec, held_out: HeldOut) -> Iterator[Batch]:
    """Each observation as a batch of one, of which only what a plan sees is known."""
    autoencoder: Any = AutoencoderKLLTXVideo  # diffusers has no types
    vae = autoencoder.from_pretrained(folder / bundle.VAE, torch_dtype=torch.float32)
    coder, normaliser = TextCoder(folder, spec), Normaliser(spec)
    for text, jpegs, state in zip(held_out.instructions, held_out.jpegs, held_out.state, strict=True):
        latents = encode_pictures(vae, {camera: [jpeg] for camera, jpeg in jpegs.items()})
        history = torch.from_numpy(normaliser.history(state))
        seen = _seen(spec, latents, history[None, spec.action.vector.dim :])
        yield Batch(seen, padded([torch.from_numpy(coder.encode([text.encode()])[0])], MASKED))


def _seen(spec: PolicySpec, latents: Tensor, state: Tensor) -> Samples:
    """What comes after the observation is NaN, so nothing can read it unnoticed."""
    return Samples(
        memory=latents,
        future=torch.full_like(latents, math.nan),
        state=state,
        actions=torch.full((1, spec.chunk, spec.model.action.in_channels), math.nan),
        is_label=torch.zeros(1, spec.chunk, dtype=torch.bool),
        values=torch.full((1, spec.num_value_tokens, spec.model.value.in_channels), math.nan),
        task=torch.zeros(1, dtype=torch.int64),
    )
