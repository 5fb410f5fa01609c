"""The value and action experts: one transformer in two configurations, which reads video features block by block.

Block `i` attends to video features `i` (`attn2`). In the action expert it also attends to value features `i` (`attn3`,
paper equation 3). Parameter names are the official ones without their prefix. This module knows neither sampling nor
planning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavserve.core.spec import ExpertConfig, ModelConfig
from wavserve.models.networks.layers import Block, Context, TimeEmbed, head
from wavserve.models.networks.maths import token_rotary


@dataclass(frozen=True, slots=True)
class ExpertOutput:
    """The results of one forward."""

    features: Sequence[Tensor]
    """features after each block, `[B, T(+1), A]`; a history token comes first"""
    velocity: Tensor
    """`[B, T, channels]`"""


class ExpertDiT(nn.Module):
    """An expert of width A.

    `context_widths` holds the width of the video features and, for the action expert, also that of the value features.
    """

    def __init__(self, config: ModelConfig, expert: ExpertConfig, context_widths: Sequence[int]) -> None:
        super().__init__()
        width = expert.width
        self.context_widths = tuple(context_widths)
        self.rope_base, self.rope_theta, self.out_norm_eps = expert.rope_base, config.rope_theta, config.out_norm_eps
        self.proj_in = nn.Linear(expert.in_channels, width)
        self.time_embed = TimeEmbed(width)
        self.blocks = nn.ModuleList(
            Block(width, expert.num_heads, context_widths, config) for _ in range(config.video.num_layers)
        )
        self.scale_shift_table = nn.Parameter(torch.zeros(2, width))
        self.proj_out = nn.Linear(width, expert.out_channels)

    def forward(
        self,
        tokens: Tensor,
        timestep: Tensor,
        video: Sequence[Tensor],
        value: Sequence[Tensor] | None = None,
        history: Tensor | None = None,
    ) -> ExpertOutput:
        """One forward of `tokens [B, T, C]` with `timestep [B, T]`.

        `video` holds the video features after each block, `[B, V*L, D]`. The other two are for the action expert:
        `value` holds the value features after each block, `[B, T, Avalue]` (None skips `attn3`). `history [B, 1, C]`
        is a noise-free token at position 0 with timestep 0.
        """
        first = 0 if history is None else 1
        if history is not None:
            tokens = torch.cat([history, tokens], dim=1)
            timestep = torch.cat([torch.zeros_like(timestep[:, :1]), timestep], dim=1)
        x = self.proj_in(tokens)
        temb, embedded = self.time_embed(timestep)
        rotary = token_rotary(x.shape[1], self.rope_base, x.shape[2], self.rope_theta).to(x)
        features = []
        for layer, block in enumerate(self.blocks):
            contexts = [Context(video[layer]), None if value is None else Context(value[layer])]
            x = block(x, temb, rotary, contexts[: len(self.context_widths)])
            features.append(x)
        return ExpertOutput(features, self.head(x[:, first:], embedded[:, first:]))

    def head(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Velocity `[B, T, channels]` of the last features `[B, T, A]` under the time embedding `[B, T, A]`."""
        return head(x, embedded, self.scale_shift_table, self.proj_out, self.out_norm_eps)


def value_dit(config: ModelConfig) -> ExpertDiT:
    """The value expert of a configuration."""
    return ExpertDiT(config, config.value, [config.video.width])


def action_dit(config: ModelConfig) -> ExpertDiT:
    """The action expert of a configuration (paper equation 3)."""
    return ExpertDiT(config, config.action, [config.video.width, config.value.width])
