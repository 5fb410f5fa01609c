"""Tensor functions without weights that the three transformers share: rotary tables, time features, packing.

Rotary tables are float32. They are always computed on the CPU, so that every device rotates by the same angles. This
module knows nothing of weights, sampling or planning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from wavserve.core.spec import LatentSpec, ModelConfig

TIME_CHANNELS = 256
"""Width of the sinusoidal timestep features."""


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary embedding as tables `[L, width]`. Channels `2i` and `2i + 1` form a pair; both hold the pair's angle."""

    cos: Tensor
    sin: Tensor

    def to(self, like: Tensor) -> Rotary:
        """The same tables on the device of `like`. Their dtype stays float32."""
        return Rotary(self.cos.to(like.device), self.sin.to(like.device))

    def interleaved(self) -> Tensor:
        """Cosine and sine of each pair's angle as one table `[L, width / 2, 2]`, for `torch.view_as_complex`."""
        return torch.stack([self.cos[:, ::2], self.sin[:, ::2]], dim=-1)


def rotary_table(grid: Tensor, width: int, theta: float) -> Rotary:
    """Tables for positions `grid [L, axes]`, given as fractions of the base.

    The pairs of one frequency are adjacent, one per axis. If `2 * axes` does not divide the width, the first channels
    are not rotated. Raises ValueError for an odd width, because channels are rotated in pairs.
    """
    if width % 2:
        raise ValueError(f"rotary width: expected an even number, got {width}")
    axes = grid.shape[1]
    # powers, cosines and sines in float64: in float32, machines round a few of them differently
    frequencies = (theta ** _exponents(width // (2 * axes)).double()).float() * math.pi / 2.0
    angles = rearrange(frequencies * (grid.unsqueeze(-1) * 2 - 1), "l a i -> l (i a)").repeat_interleave(2, dim=-1)
    exact = angles.double()
    num_fixed = width - angles.shape[1]  # channels that are not rotated
    cos = torch.cat([torch.ones(len(grid), num_fixed), exact.cos().float()], dim=-1)
    sin = torch.cat([torch.zeros(len(grid), num_fixed), exact.sin().float()], dim=-1)
    return Rotary(cos, sin)


def _exponents(num: int) -> Tensor:
    """`num` float32 numbers from 0 to 1, rounded as `linspace` rounds on processors with a fused multiply-add.

    At the highest frequency, one unit in the last place changes an angle by a thousandth, so the result must not depend
    on the processor.
    """
    step = float(np.float32(1.0) / np.float32(max(num - 1, 1)))
    index = np.arange(num)
    exact = np.where(index < max(num // 2, 1), step * index, 1.0 - step * (num - 1 - index))
    return torch.from_numpy(exact.astype(np.float32))


def video_rotary(config: ModelConfig, latent: LatentSpec) -> Rotary:
    """Tables `[L, D]` of one view's tokens `(f h w)`. Every view has the same positions."""
    sizes = (latent.num_frames, latent.height, latent.width)
    steps = (latent.temporal_ratio / latent.frame_rate, latent.spatial_ratio, latent.spatial_ratio)
    with torch.device("cpu"):
        axes = [
            torch.arange(size, dtype=torch.float32) * step / base
            for size, step, base in zip(sizes, steps, config.video.rope_base, strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
        return rotary_table(grid, config.video.width, config.rope_theta)


def token_rotary(length: int, base: int, width: int, theta: float) -> Rotary:
    """Tables `[length, width]` of an expert's tokens. `base` is the position at which the grid reaches 1."""
    with torch.device("cpu"):
        return rotary_table(torch.arange(length, dtype=torch.float32).unsqueeze(-1) / base, width, theta)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """`x [..., L, width]` with each channel pair rotated by its angle, in float32. `x` is not yet split into heads."""
    exact = x.float()
    first, second = exact.view(*x.shape[:-1], -1, 2).unbind(-1)
    quarter_turned = torch.stack((-second, first), dim=-1).flatten(-2)
    return (exact * rotary.cos + quarter_turned * rotary.sin).to(x.dtype)


def time_features(timestep: Tensor) -> Tensor:
    """Sinusoidal features `[..., 256]` of timesteps `[...]` (1000 sigma). Cosines come first."""
    half = TIME_CHANNELS // 2
    exponents = -math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    rates = exponents.double().exp().float()  # in float32, machines round a few of them differently
    angles = timestep.float().unsqueeze(-1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def pack(latents: Tensor) -> Tensor:
    """Latents `[..., C, F, H, W]` -> tokens `[..., (F H W), C]`."""
    return rearrange(latents, "... c f h w -> ... (f h w) c")


def unpack(tokens: Tensor, latent: LatentSpec) -> Tensor:
    """Tokens `[..., (F H W), C]` of whole frames -> latents `[..., C, F, H, W]`."""
    return rearrange(tokens, "... (f h w) c -> ... c f h w", h=latent.height, w=latent.width)
