"""Forwards of the three transformers for training: the same output on the same modules, which autograd can follow.

A timestep is embedded once per frame or sample, not once per token. A text is projected to keys and values once for all
rows that share it, and video features once for all draws on one sample. The plain forwards in `models/networks` are the
oracle. This module knows neither losses nor data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from wavserve.models.networks.expert import ExpertDiT, ExpertOutput
from wavserve.models.networks.layers import Block, Context, head
from wavserve.models.networks.maths import Rotary, token_rotary
from wavserve.models.networks.video import VideoDiT, VideoOutput, is_joint


def video_forward(model: VideoDiT, frames: Tensor, timestep: Tensor, text: Context, rotary: Rotary) -> VideoOutput:
    """One forward of `frames [B, V, F, L, C]` (L tokens a frame) with `timestep [B or 1, F]`; memory frames have 0.

    `text` has R rows; each applies to B / R rows of the batch, in order. `rotary [F*L, D]` is the table of one view.
    Features are `[B, V*F*L, D]`, as the experts read them. The velocity is `[B, V, F, L, C]`.
    """
    num_views = frames.shape[1]
    x = model.proj_in(frames)
    per_view = timestep.unsqueeze(1).expand(-1, num_views, -1).flatten(1)
    temb, embedded = model.embed_time(per_view, num_views)
    temb = rearrange(temb, "b (v f) (s d) -> b v f 1 s d", v=num_views, s=6)
    caption = Context(model.caption_projection(text.tokens), text.mask)
    joint = Rotary(rotary.cos.repeat(num_views, 1), rotary.sin.repeat(num_views, 1))
    features = []
    for layer, each in enumerate(model.transformer_blocks):
        block = cast(Block, each)
        rows = "b v f l d -> b (v f l) d" if is_joint(layer) else "b v f l d -> (b v) (f l) d"
        x = _block(block, x, temb, joint if is_joint(layer) else rotary, rows, [caption])
        features.append(x.flatten(1, 3))
    embedded = rearrange(embedded, "b (v f) d -> b v f 1 d", v=num_views)
    return VideoOutput(features, head(x, embedded, model.scale_shift_table, model.proj_out, model.out_norm_eps))


def expert_forward(
    model: ExpertDiT,
    samples: Tensor,
    timestep: Tensor,
    features: Sequence[Sequence[Tensor]],
    history: Tensor | None = None,
    is_clean: Tensor | None = None,
) -> ExpertOutput:
    """One forward of `samples [B, R, T, C]`, R draws on each video sample, with `timestep [B, R]`.

    `features`: after each block, those of the video `[B, L, D]` and, for the action expert, those of the value expert
    `[B, T, Avalue]`. `history [B, C]` becomes a first token with timestep 0. `is_clean [B, R, T]`: further tokens with
    timestep 0; nobody reads their velocity. Its own features are `[B, R, T(+1), A]`, the velocity is `[B, R, T, C]`.
    """
    num_draws, length = samples.shape[1:3]
    clean = torch.zeros(samples.shape[:3], dtype=torch.bool, device=samples.device) if is_clean is None else is_clean
    if history is not None:
        samples = torch.cat([history[:, None, None].expand(-1, num_draws, 1, -1), samples], dim=2)
        clean = torch.cat([torch.ones_like(clean[..., :1]), clean], dim=2)
    x = model.proj_in(samples)
    temb, embedded = model.time_embed(torch.stack([timestep, torch.zeros_like(timestep)], dim=-1))
    temb = rearrange(temb, "b r two (s a) -> b r two 1 s a", s=6)
    temb = torch.where(clean[..., None, None], temb[:, :, 1], temb[:, :, 0])
    rotary = token_rotary(x.shape[2], model.rope_base, x.shape[3], model.rope_theta).to(x)
    own = []
    for layer, block in enumerate(model.blocks):
        contexts = [Context(each[layer]) for each in features]
        x = _block(cast(Block, block), x, temb, rotary, "b r t a -> (b r) t a", contexts)
        own.append(x)
    velocity = head(x[:, :, -length:], embedded[:, :, :1], model.scale_shift_table, model.proj_out, model.out_norm_eps)
    return ExpertOutput(own, velocity)


def _block(block: Block, x: Tensor, temb: Tensor, rotary: Rotary, rows: str, contexts: Sequence[Context]) -> Tensor:
    """One block on `x [B, ..., D]`. `temb [..., 6, D]` broadcasts; `rows` says which tokens attend to each other.

    A context of R rows is read by B / R rows of `x` each. There may be fewer contexts than cross-attentions.
    """
    shift1, scale1, gate1, shift2, scale2, gate2 = (block.scale_shift_table + temb).unbind(-2)
    n = rearrange(_modulated(x, shift1, scale1, block.eps), rows)
    x = torch.addcmul(x, block.attn1(n, Context(n), rotary).view(x.shape), gate1)
    layers = [layer for layer in (block.attn2, block.attn3) if layer is not None]
    # both cross-attentions read the same x (paper equation 3)
    for update in [layer(_grouped(x, read), read) for layer, read in zip(layers, contexts, strict=False)]:
        x = x + update.view(x.shape)
    n = _modulated(x, shift2, scale2, block.eps)
    return torch.addcmul(x, block.ff(n), gate2)


def _grouped(x: Tensor, context: Context) -> Tensor:
    """The queries `[R, ..., D]` of a context of R rows: attention treats each query alone."""
    return x.reshape(len(context.tokens), -1, x.shape[-1])


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    return torch.addcmul(shift, F.rms_norm(x, x.shape[-1:], eps=eps), 1 + scale)
