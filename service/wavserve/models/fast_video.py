"""The video transformer restructured: the same output on the same weights, without the work that repeats itself.

Text keys and values once an instruction and without padding; timesteps embedded once each (there are two: `t` and 0),
modulation applied to memory and generated tokens as slices; few samples at a time, so that the working set fits the
cache; no output nobody reads. Called by the video runner. The plain forward in `video` is its oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from wavserve.models import flow
from wavserve.models.fast_layers import KeyValue, attend, heads, key_value, query, turn_
from wavserve.models.layers import Attention, Block, head
from wavserve.models.maths import pack, unpack, video_rotary
from wavserve.models.video import VideoDiT, is_joint
from wavserve.spec import LatentSpec, ModelConfig

Sink = Callable[[int, Tensor], None]
"""`sink(layer, x [(G N), V*L, D])` after each block. The next block overwrites `x`: copy what is kept."""

_CACHED = 1 << 18
"""Elements of `[rows, V, L, D]` worked on at once on a CPU, so that the feed-forward's stay in the cache."""

_MEMORY, _NOW = 0, 1
"""Timesteps of a forward: that of memory tokens, and the current one."""


@dataclass(frozen=True, slots=True)
class TextKV:
    """An instruction as each block reads it: keys and values `[1, heads, prompt, head dim]`, without padding."""

    blocks: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Samples worked on at once, and which of them read which instruction."""

    rows: slice
    texts: list[tuple[slice, TextKV]]


class FastVideo:
    """Fast forwards of `dit` for samples of one latent shape. Holds no weights; running does not change it."""

    def __init__(self, dit: VideoDiT, config: ModelConfig, latent: LatentSpec, num_views: int) -> None:
        self._dit, self._latent, self._num_views = dit, latent, num_views
        self._norm_eps, self._out_norm_eps = config.norm_eps, config.out_norm_eps
        self._blocks: list[Block] = list(dit.transformer_blocks)  # type: ignore[arg-type]
        self._num_memory = latent.num_memory_frames * latent.tokens_per_frame
        self._turns = video_rotary(config, latent).as_complex().to(dit.view_embed.device)

    @torch.inference_mode()
    def text_kv(self, embedding: Tensor) -> TextKV:
        """Keys and values of an instruction's `embedding [prompt, Ctext]`."""
        caption = self._dit.caption_projection(embedding.to(self._dit.view_embed).unsqueeze(0))
        return TextKV(tuple(key_value(block.attn2, caption) for block in self._blocks))

    def imagine(
        self,
        memory: Tensor,
        noise: Tensor,
        texts: Sequence[TextKV],
        num_steps: int,
        sink: Sink,
        on_step: flow.OnStep | None = None,
    ) -> None:
        """Give `sink` the features of the last of `num_steps` forwards on the way to data (1: of the noise itself)."""
        x, sigma = flow.approach(lambda x, s: self._velocity(memory, x, s, texts), noise, num_steps, on_step)
        self.run(memory, x, sigma, texts, sink)

    def denoise(
        self,
        memory: Tensor,
        noise: Tensor,
        texts: Sequence[TextKV],
        num_steps: int,
        on_step: flow.OnStep | None = None,
    ) -> Tensor:
        """Future latents `[G, N, V, C, Fgen, H, W]` fully denoised from `noise`."""
        return flow.integrate(lambda x, s: self._velocity(memory, x, s, texts), noise, num_steps, on_step)

    @torch.inference_mode()
    def run(
        self,
        memory: Tensor,
        future: Tensor,
        sigma: float,
        texts: Sequence[TextKV],
        sink: Sink | None = None,
        velocity: bool = False,
    ) -> Tensor | None:
        """One forward of `future [G, N, V, C, Fgen, H, W]` at `sigma` behind `memory [G, V, C, P, H, W]`.

        `texts`: one a group, lengths may differ. Features go to `sink`; with `velocity` the velocity comes back in the
        shape and dtype of `future`. A group's result does not depend on which groups share the call.
        """
        temb, embedded = self._times(sigma)
        x = self._embed(memory, future)
        chunks = list(self._chunks(x, texts))
        for layer, block in enumerate(self._blocks):
            unread = sink is None and layer == len(self._blocks) - 1  # then memory tokens serve as keys and values only
            table = block.scale_shift_table + temb
            for chunk in chunks:
                self._block(x[chunk.rows], layer, table, chunk.texts, self._num_memory if unread else 0)
            if sink is not None:
                sink(layer, x.flatten(1, 2))
        return self._head(x[:, :, self._num_memory :], embedded, future) if velocity else None

    def _velocity(self, memory: Tensor, future: Tensor, sigma: float, texts: Sequence[TextKV]) -> Tensor:
        out = self.run(memory, future, sigma, texts, velocity=True)
        assert out is not None
        return out

    def _times(self, sigma: float) -> tuple[Tensor, Tensor]:
        """Modulation `[2, V, 6, D]` of memory (timestep 0) and generated tokens; the latter's head embedding."""
        timestep = torch.tensor([0.0, sigma], device=self._turns.device) * flow.TIMESTEPS
        temb, embedded = self._dit.embed_time(timestep.unsqueeze(-1).expand(-1, self._num_views), self._num_views)
        return rearrange(temb, "t v (s d) -> t v s d", s=6), embedded[_NOW]

    def _embed(self, memory: Tensor, future: Tensor) -> Tensor:
        """Input tokens `[(G N), V, L, D]`; the memory's are projected once a group."""
        dtype = self._dit.view_embed.dtype
        memory, future = (self._dit.proj_in(pack(part).to(dtype)) for part in (memory, future))
        memory = memory.unsqueeze(1).expand(-1, future.shape[1], -1, -1, -1)
        return torch.cat([memory, future], dim=3).flatten(0, 1)

    def _chunks(self, x: Tensor, texts: Sequence[TextKV]) -> Iterator[_Chunk]:
        per_group = len(x) // len(texts)
        if x.device.type != "cpu":
            groups = [slice(g * per_group, (g + 1) * per_group) for g in range(len(texts))]
            yield _Chunk(slice(None), list(zip(groups, texts, strict=True)))
            return
        size = max(1, _CACHED // x[0].numel())
        for group, text in enumerate(texts):
            for start in range(group * per_group, (group + 1) * per_group, size):
                yield _Chunk(slice(start, min(start + size, (group + 1) * per_group)), [(slice(None), text)])

    def _block(self, x: Tensor, layer: int, table: Tensor, texts: list[tuple[slice, TextKV]], first: int) -> None:
        """Block `layer` on `x [rows, V, L, D]`, in place; tokens before `first` of a view are read but not updated."""
        block, kept = self._blocks[layer], x[:, :, first:]
        shift1, scale1, gate1, shift2, scale2, gate2 = table.unbind(-2)
        n = self._modulated(x, shift1, scale1, 0)
        self._add_(kept, self._self_attention(block.attn1, n, is_joint(layer), first), gate1, first)
        for rows, text in texts:
            q = query(block.attn2, kept[rows])
            kept[rows].add_(attend(block.attn2, q.view(1, -1, q.shape[-1]), text.blocks[layer]).view(q.shape))
        n = self._modulated(kept, shift2, scale2, first)
        self._add_(kept, block.ff(n), gate2, first)

    def _self_attention(self, layer: Attention, n: Tensor, joint: bool, first: int) -> Tensor:
        """Self-attention of `n [rows, V, L, D]` over all views or within each, for the tokens from `first` on."""
        q = turn_(query(layer, n[:, :, first:]), self._turns[first:])
        k = turn_(layer.norm_k(layer.to_k(n)), self._turns)
        q, k, v = (part.flatten(1, 2) if joint else part.flatten(0, 1) for part in (q, k, layer.to_v(n)))
        context = KeyValue(heads(k, layer.num_heads), heads(v, layer.num_heads))
        return attend(layer, q, context).view(len(n), self._num_views, -1, n.shape[-1])

    def _stretches(self, first: int) -> list[tuple[slice, int]]:
        """Neighbouring tokens that share a timestep, and its index; `first` is the view's first token present."""
        if first:
            return [(slice(None), _NOW)]
        return [(slice(self._num_memory), _MEMORY), (slice(self._num_memory, None), _NOW)]

    def _modulated(self, x: Tensor, shift: Tensor, scale: Tensor, first: int) -> Tensor:
        n = F.rms_norm(x, x.shape[-1:], eps=self._norm_eps)
        for tokens, time in self._stretches(first):
            part = n[:, :, tokens]
            torch.addcmul(shift[time].unsqueeze(1), part, 1 + scale[time].unsqueeze(1), out=part)
        return n

    def _add_(self, x: Tensor, update: Tensor, gate: Tensor, first: int) -> None:
        for tokens, time in self._stretches(first):
            x[:, :, tokens].addcmul_(update[:, :, tokens], gate[time].unsqueeze(1))

    def _head(self, x: Tensor, embedded: Tensor, future: Tensor) -> Tensor:
        """Velocity, in the shape and dtype of `future`, of generated tokens `x [(G N), V, Lgen, D]`."""
        out = head(x, embedded.unsqueeze(1), self._dit.scale_shift_table, self._dit.proj_out, self._out_norm_eps)
        return unpack(out, self._latent).view(*future.shape[:3], -1, *future.shape[4:]).to(future.dtype)
