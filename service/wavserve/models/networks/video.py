"""The video diffusion transformer (paper section 4.1): features after every block, and the velocity.

This plain forward is the oracle of the fast one, which reads the same weights. Parameter names are the official ones.
This module knows neither sampling nor planning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavserve.core.spec import ModelConfig
from wavserve.models.networks.layers import Block, Context, TimeEmbed, TwoLayer, gelu, head
from wavserve.models.networks.maths import Rotary

JOINT_EVERY = 3
"""Every third block, starting with the first, attends across all views of a sample. The others attend within a view."""


def is_joint(layer: int) -> bool:
    """Whether the self-attention of block `layer` runs across all views."""
    return layer % JOINT_EVERY == 0


@dataclass(frozen=True, slots=True)
class VideoOutput:
    """The results of one forward."""

    features: Sequence[Tensor]
    """features after each block, `[B, V*L, D]`; the experts read them"""
    velocity: Tensor
    """`[B, V*L, C]`"""


class VideoDiT(nn.Module):
    """The video transformer of `config.video`. A sample's tokens are those of its views in turn: `(v l)`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        video = config.video
        width = video.width
        self.out_norm_eps = config.out_norm_eps
        self.proj_in = nn.Linear(video.in_channels, width)
        self.time_embed = TimeEmbed(width)
        self.caption_projection = TwoLayer(video.caption_channels, width, gelu)
        self.transformer_blocks = nn.ModuleList(
            Block(width, video.num_heads, [width], config) for _ in range(video.num_layers)
        )
        self.scale_shift_table = nn.Parameter(torch.zeros(2, width))
        self.proj_out = nn.Linear(width, video.out_channels)
        self.view_embed = nn.Parameter(torch.zeros(video.max_views, width))
        self.view_ada = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, tokens: Tensor, timestep: Tensor, text: Context, rotary: Rotary) -> VideoOutput:
        """One forward of `tokens [B, V*L, C]` with `timestep [B, V*L]` (1000 sigma; memory tokens have 0).

        The padding of `text [B, P, Ctext]` is masked. `rotary [L, D]` is the table of one view, so its length L gives
        the number of views.
        """
        num_views = tokens.shape[1] // len(rotary.cos)
        x = self.proj_in(tokens)
        temb, embedded = self.embed_time(timestep, num_views)
        caption = Context(self.caption_projection(text.tokens), text.mask)
        joint = Rotary(rotary.cos.repeat(num_views, 1), rotary.sin.repeat(num_views, 1))
        features = []
        for layer, block in enumerate(self.transformer_blocks):
            x = block(x, temb, joint, [caption]) if is_joint(layer) else block(x, temb, rotary, [caption], num_views)
            features.append(x)
        return VideoOutput(features, head(x, embedded, self.scale_shift_table, self.proj_out, self.out_norm_eps))

    def embed_time(self, timestep: Tensor, num_views: int) -> tuple[Tensor, Tensor]:
        """Timesteps `[..., V*L]` -> modulation `[..., V*L, 6 D]` and head embedding `[..., V*L, D]`.

        Both include the learned view embedding.
        """
        temb, embedded = self.time_embed(timestep)
        view = self.view_embed[:num_views]
        per_view = timestep.shape[-1] // num_views
        ada = self.view_ada(view).repeat_interleave(per_view, dim=0)
        return temb + ada, embedded + view.repeat_interleave(per_view, dim=0)
