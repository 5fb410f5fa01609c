"""The video autoencoder of a recipe: diffusers' `AutoencoderKLLTXVideo`, its initial weights, its files.

Knows neither data nor losses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wavserve.core.errors import BundleError
from wavserve.training.initial import named_generator
from wavserve.training.recipe import VaeRecipe

WEIGHTS = "diffusion_pytorch_model.safetensors"
_ORIGIN = "origin"
_LAYERS = (1, 1, 1, 1, 1)
_FIRST_GAIN, _SECOND_GAIN, _OUT_GAIN = 1.6, 0.1, 0.1
"""of a residual branch's two convolutions, and of the decoder's last one"""
_MEAN_COLOUR = -0.18
"""of the simulator's pictures, in -1..1; the decoder starts with it"""


def initial_vae(recipe: VaeRecipe, seed: int) -> Any:
    """An autoencoder of the recipe's sizes, ready to be trained.

    Convolutions keep their input's variance and have no bias. With torch's own initialisation the biases drown the
    picture, and training stays at the mean colour for hundreds of steps.
    """
    network: Any = AutoencoderKLLTXVideo  # diffusers has no types
    vae = network(
        latent_channels=recipe.latent_channels,
        block_out_channels=recipe.encoder_blocks,
        decoder_block_out_channels=recipe.decoder_blocks,
        layers_per_block=_LAYERS,
        decoder_layers_per_block=_LAYERS,
    )
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            parameter.copy_(_initial(name, parameter, named_generator(f"{seed}:vae:{name}")))
        vae.decoder.conv_out.conv.bias.fill_(_MEAN_COLOUR)
    return vae


def _initial(name: str, parameter: nn.Parameter, generator: torch.Generator) -> Tensor:
    if parameter.dim() == 1:  # a bias, or the weight of a norm
        return torch.ones_like(parameter) if name.endswith("norm3.weight") else torch.zeros_like(parameter)
    gain = 1.0
    if ".conv1." in name:
        gain = _FIRST_GAIN
    elif ".conv2." in name:
        gain = _SECOND_GAIN
    elif name.startswith("decoder.conv_out"):
        gain = _OUT_GAIN
    scale: float = gain * parameter[0].numel() ** -0.5
    return torch.randn(parameter.shape, generator=generator) * scale


def load_vae(recipe: VaeRecipe, folder: Path) -> Any:
    """The trained autoencoder that `save_vae` wrote, for evaluation. Raises BundleError for another one."""
    vae = initial_vae(recipe, seed=0)
    try:
        vae.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(f"{folder}: expected the autoencoder of the recipe: {error}") from error
    return vae.eval().requires_grad_(False)


def is_saved(folder: Path, origin: str) -> bool:
    """Whether the folder has an autoencoder that was saved with this origin."""
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return bool(file.metadata().get(_ORIGIN) == origin)
    except (OSError, SafetensorError):
        return False


def save_vae(vae: Any, folder: Path, dtype: torch.dtype, origin: str = "") -> None:
    """Writes it in diffusers layout, with weights of a type. The latents' statistics stay float32."""
    vae.save_config(folder)
    kept = ("latents_mean", "latents_std")
    state = {name: t if name in kept else t.to(dtype) for name, t in vae.state_dict().items()}
    about = {"format": "pt", _ORIGIN: origin}
    save_file({name: t.contiguous() for name, t in state.items()}, folder / WEIGHTS, metadata=about)
