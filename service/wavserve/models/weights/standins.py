"""Seeded random stand-ins for the VAE and the text encoder, in the layouts of the real ones.

Every draw is uniform, because a seed must give the same digest on every machine; normal draws take logarithms, which
machines round differently. Scales are those of the libraries' own initialisation. The latent statistics are set so that
the latents of camera frames have a std of about 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from safetensors.torch import save_file
from torch import Tensor
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel


@dataclass(frozen=True, slots=True)
class StandIns:
    """Sizes of the stand-ins. The VAE's ratios are 32 (spatial) and 8 (temporal), like the real one's."""

    latent_channels: int
    vae_blocks: tuple[int, int, int, int]
    latents_std: float
    """measured std of the raw latents of camera frames"""
    text_width: int
    text_heads: int
    text_head_dim: int
    text_hidden: int
    text_layers: int


def write_vae(folder: Path, sizes: StandIns, seed: int) -> None:
    """Writes a random `AutoencoderKLLTXVideo`, encoder and decoder, in diffusers layout."""
    network: Any = AutoencoderKLLTXVideo  # diffusers has no types
    with torch.random.fork_rng(devices=[]):  # the initialisers draw from the global generator; this restores it
        torch.manual_seed(seed)
        vae = network(
            latent_channels=sizes.latent_channels,
            block_out_channels=sizes.vae_blocks,
            decoder_block_out_channels=sizes.vae_blocks,
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
        )
    state = vae.state_dict()
    state["latents_std"] = torch.full_like(state["latents_std"], sizes.latents_std)
    vae.save_config(folder)
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def write_text_encoder(folder: Path, sizes: StandIns, seed: int) -> None:
    """Writes a random `T5EncoderModel` over bytes, in transformers layout."""
    config = T5Config(
        vocab_size=384,  # ByT5: 256 bytes, 3 special tokens, 125 sentinels
        d_model=sizes.text_width,
        d_kv=sizes.text_head_dim,
        num_heads=sizes.text_heads,
        d_ff=sizes.text_hidden,
        num_layers=sizes.text_layers,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    with torch.device("meta"):
        shapes = {name: tuple(parameter.shape) for name, parameter in T5EncoderModel(config).named_parameters()}
    generator = torch.Generator("cpu").manual_seed(seed)
    state = {name: _draw(name, shape, sizes.text_head_dim, generator) for name, shape in sorted(shapes.items())}
    config.architectures = [T5EncoderModel.__name__]
    config.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def write_tokenizer(folder: Path) -> None:
    """Writes ByT5's tokeniser. It works on bytes and needs no vocabulary file."""
    ByT5Tokenizer().save_pretrained(folder)


def _draw(name: str, shape: tuple[int, ...], head_dim: int, generator: torch.Generator) -> Tensor:
    """Uniform weights with the std of T5's initialisation. T5 does not scale attention, so its queries are small."""
    if name.endswith("layer_norm.weight"):
        return torch.ones(shape)
    std = 1.0 if name == "shared.weight" else shape[-1] ** -0.5
    if name.endswith("SelfAttention.q.weight"):
        std *= head_dim**-0.5
    return torch.rand(shape, generator=generator).mul_(2).sub_(1).mul_(3**0.5 * std)
