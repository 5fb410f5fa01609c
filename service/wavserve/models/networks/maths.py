"""Tensor functions without parameters that the three transformers share: rotary tables, time features, packing.

Called by `layers`, the models and their fast paths. Knows nothing of weights, sampling or planning. Rotary tables are
computed in float32 on the CPU whatever the model runs on, so that every device rotates by the same angles.
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
    """Rotary tables `[L, width]`: each angle stands twice, for the two channels of an interleaved pair."""

    cos: Tensor
    sin: Tensor

    def to(self, like: Tensor) -> Rotary:
        """The same tables on the device of `like` (they stay float32)."""
        return Rotary(self.cos.to(like.device), self.sin.to(like.device))

    def interleaved(self) -> Tensor:
        """Cosine and sine of each pair's angle `[L, width / 2, 2]`."""
        return torch.stack([self.cos[:, ::2], self.sin[:, ::2]], dim=-1)


def rotary(grid: Tensor, width: int, theta: float) -> Rotary:
    """Tables for positions `grid [L, axes]` (fractions of the base), axis fastest; leftover channels do not turn.

    Raises ValueError on an odd width: channels turn in pairs.
    """
    if width % 2:
        raise ValueError(f"rotary width: expected an even number, got {width}")
    axes = grid.shape[1]
    # powers and angles in float64: in float32 each machine rounds a few of them its own way
    frequencies = (theta ** _exponents(width // (2 * axes)).double()).float() * math.pi / 2.0
    angles = rearrange(frequencies * (grid.unsqueeze(-1) * 2 - 1), "l a i -> l (i a)").repeat_interleave(2, dim=-1)
    turning = angles.double()
    still = width - angles.shape[1]  # the first channels, where the width is no multiple of 2 * axes
    cos = torch.cat([torch.ones(len(grid), still), turning.cos().float()], dim=-1)
    sin = torch.cat([torch.zeros(len(grid), still), turning.sin().float()], dim=-1)
    return Rotary(cos, sin)


def _exponents(num: int) -> Tensor:
    """`num` float32 numbers from 0 to 1, rounded as processors with a fused multiply-add round `linspace`.

    At the highest frequency one unit in the last place rotary an angle by a thousandth, so this must not be left to
    the machine.
    """
    step = float(np.float32(1.0) / np.float32(max(num - 1, 1)))
    index = np.arange(num)
    exact = np.where(index < max(num // 2, 1), step * index, 1.0 - step * (num - 1 - index))
    return torch.from_numpy(exact.astype(np.float32))


def video_rotary(config: ModelConfig, latent: LatentSpec) -> Rotary:
    """Tables `[L, D]` of one view's tokens, frame slowest and column fastest; positions restart in each view."""
    sizes = (latent.num_frames, latent.height, latent.width)
    steps = (latent.temporal_ratio / latent.frame_rate, latent.spatial_ratio, latent.spatial_ratio)
    with torch.device("cpu"):
        axes = [
            torch.arange(size, dtype=torch.float32) * step / base
            for size, step, base in zip(sizes, steps, config.video.rope_base, strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
        return rotary(grid, config.video.width, config.rope_theta)


def token_rotary(length: int, base: int, width: int, theta: float) -> Rotary:
    """Tables `[length, width]` of an expert's tokens; `base` is the position at which the grid reaches 1."""
    with torch.device("cpu"):
        return rotary(torch.arange(length, dtype=torch.float32).unsqueeze(-1) / base, width, theta)


def rotate(x: Tensor, table: Rotary) -> Tensor:
    """`x [..., L, width]` turned pair by pair, in float32, before it is split into heads."""
    wide = x.float()
    first, second = wide.view(*x.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack((-second, first), dim=-1).flatten(-2)
    return (wide * table.cos + turned * table.sin).to(x.dtype)


def time_features(timestep: Tensor) -> Tensor:
    """Sinusoidal features `[..., 256]` of timesteps `[...]` (1000 sigma), cosines first."""
    half = TIME_CHANNELS // 2
    exponents = -math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    rates = exponents.double().exp().float()  # in float32 each machine rounds a few of them its own way
    angles = timestep.float().unsqueeze(-1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def pack(latents: Tensor) -> Tensor:
    """Latents `[..., C, F, H, W]` as tokens `[..., (F H W), C]`."""
    return rearrange(latents, "... c f h w -> ... (f h w) c")


def unpack(tokens: Tensor, latent: LatentSpec) -> Tensor:
    """Tokens `[..., (F H W), C]` of whole frames as latents `[..., C, F, H, W]`."""
    return rearrange(tokens, "... (f h w) c -> ... c f h w", h=latent.height, w=latent.width)
