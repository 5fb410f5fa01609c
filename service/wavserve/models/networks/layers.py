"""The layers of the video model and of both experts, under the official parameter names.

They are the oracle: they follow the formulas line by line and are not fast. The fast paths read the same modules'
weights. This module knows nothing of latents, sampling or planning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wavserve.core.spec import ModelConfig
from wavserve.models.networks.maths import TIME_CHANNELS, Rotary, rotate, time_features


@dataclass(frozen=True, slots=True)
class Context:
    """Input of a cross-attention: `tokens [B, L, C]`. If some are padding, `mask [B, L]` is added to the logits."""

    tokens: Tensor
    mask: Tensor | None = None


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """`[B, L, (heads d)]` -> `[B, heads, L, d]`, a view."""
    return rearrange(x, "b l (h d) -> b h l d", h=num_heads)


def merge_heads(x: Tensor) -> Tensor:
    """`[B, heads, L, d]` -> `[B, L, (heads d)]`."""
    return rearrange(x, "b h l d -> b l (h d)")


class Attention(nn.Module):
    """Attention. Queries and keys are RMS-normalised over the whole width, before the split into heads."""

    def __init__(self, width: int, context_width: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_q = nn.RMSNorm(width, eps)
        self.norm_k = nn.RMSNorm(width, eps)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(context_width, width)
        self.to_v = nn.Linear(context_width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Context, rotary: Rotary | None = None) -> Tensor:
        """`x [B, L, width]` attends to the context. `rotary [L, width]` rotates queries and keys (self-attention)."""
        q, k, v = self.norm_q(self.to_q(x)), self.norm_k(self.to_k(context.tokens)), self.to_v(context.tokens)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        mask = None if context.mask is None else context.mask[:, None, None, :].to(q.dtype)
        out: Tensor = self.to_out[0](merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        return out


class TwoLayer(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, in_width: int, width: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_width, width)
        self.linear_2 = nn.Linear(width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(self.activation(self.linear_1(x)))
        return out


class TimeEmbed(nn.Module):
    """Timesteps `[...]` -> the blocks' modulation `[..., 6 width]` and the head's embedding `[..., width]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": TwoLayer(TIME_CHANNELS, width, F.silu)})
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        embedded: Tensor = self.emb["timestep_embedder"](time_features(timestep).to(self.linear.weight.dtype))
        return self.linear(F.silu(embedded)), embedded


class _Projection(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        return gelu(self.proj(x))


class FeedForward(nn.Module):
    """Linear to four times the width, GELU, linear back. `net.1` is a dropout in the official layout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(_Projection(width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Block(nn.Module):
    """Modulated self-attention, one or two cross-attentions in parallel, modulated feed-forward.

    `attn2` reads a context of `context_widths[0]` channels. `attn3` exists only where a second width is given.
    """

    def __init__(self, width: int, num_heads: int, context_widths: Sequence[int], config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.scale_shift_table = nn.Parameter(torch.zeros(6, width))
        self.attn1 = Attention(width, width, num_heads, config.qk_norm_eps)
        second = context_widths[1] if len(context_widths) > 1 else None
        self.attn2 = Attention(width, context_widths[0], num_heads, config.qk_norm_eps)
        self.attn3 = None if second is None else Attention(width, second, num_heads, config.qk_norm_eps)
        self.ff = FeedForward(width)

    def forward(
        self, x: Tensor, temb: Tensor, rotary: Rotary, contexts: Sequence[Context | None], parts: int = 1
    ) -> Tensor:
        """One block on `x [B, L, width]` with modulation `temb [B, L, 6 width]`. A context that is None is skipped.

        Self-attention runs within each of `parts` equal parts of the tokens (the views); `rotary [L / parts, width]`.
        """
        table = self.scale_shift_table + rearrange(temb, "b l (s c) -> b l s c", s=6)
        shift1, scale1, gate1, shift2, scale2, gate2 = table.unbind(-2)
        n = F.rms_norm(x, x.shape[-1:], eps=self.eps) * (1 + scale1) + shift1
        n = rearrange(n, "b (p l) c -> (b p) l c", p=parts)
        attended = rearrange(self.attn1(n, Context(n), rotary), "(b p) l c -> b (p l) c", p=parts)
        x = x + attended * gate1
        layers = [layer for layer in (self.attn2, self.attn3) if layer is not None]
        # both cross-attentions read the same x (paper equation 3)
        for update in [layer(x, read) for layer, read in zip(layers, contexts, strict=True) if read is not None]:
            x = x + update
        n = F.rms_norm(x, x.shape[-1:], eps=self.eps) * (1 + scale2) + shift2
        out: Tensor = x + self.ff(n) * gate2
        return out


def head(x: Tensor, embedded: Tensor, table: Tensor, proj_out: nn.Linear, eps: float) -> Tensor:
    """Output head: `x [..., width]`, time embedding `[..., width]` and table `[2, width]` -> `[..., channels]`."""
    shift, scale = (table + embedded.unsqueeze(-2)).unbind(-2)
    out: Tensor = proj_out(F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift)
    return out
