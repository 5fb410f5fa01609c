"""The video transformer's fast path: the same output on the same weights, without repeated work.

Text keys and values are computed once per instruction, without padding. Each timestep is embedded once and cached; a
forward has only two, `t` for generated tokens and 0 for memory tokens. On a CPU, few samples run at a time, so that the
working set fits the cache. Outputs that are not read are not computed. The plain forward in `networks/video` is the
oracle. This module knows neither planning nor the arena.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from wavserve.core.spec import LatentSpec, ModelConfig
from wavserve.models.fast.fused import AttentionScope, BlockFunction, KeyValue, block, key_value
from wavserve.models.networks import flow
from wavserve.models.networks.layers import Block, head
from wavserve.models.networks.maths import pack, unpack, video_rotary
from wavserve.models.networks.video import VideoDiT, is_joint

Sink = Callable[[int, Tensor], None]
"""`sink(layer, x [(G N), V*L, D])`, called after each block. The next block overwrites `x`, so copy what you keep."""

_MAX_CPU_ELEMENTS = 1 << 19
"""Elements of `[rows, V, L, D]` in one micro-batch on a CPU, so that the feed-forward's activations fit the cache."""

_MEMORY, _GENERATED = 0, 1
"""Indices of a forward's two timesteps: 0 for memory tokens, `t` for generated tokens."""


@dataclass(frozen=True, slots=True)
class TextKV:
    """An instruction's key/value cache: per block `[1, heads, P, head dim]`, without padding."""

    blocks: tuple[KeyValue, ...]

    @property
    def length(self) -> int:
        """Number P of the instruction's tokens."""
        return self.blocks[0].key.shape[2]


@dataclass(frozen=True, slots=True)
class _MicroBatch:
    """Samples that run together, and their instructions. Each instruction applies to an equal share of the rows."""

    rows: slice
    texts: Sequence[TextKV]

    def context(self, layer: int) -> KeyValue:
        """Keys and values of the instructions for block `layer`, `[len(texts), heads, P, head dim]`."""
        pairs = [text.blocks[layer] for text in self.texts]
        return pairs[0] if len(pairs) == 1 else KeyValue(*(torch.cat(part) for part in zip(*pairs, strict=True)))


class FastVideo:
    """Fast forwards of `dit` for samples of one latent shape (paper section 4.1).

    It holds no weights of its own and caches only the time embeddings of noise levels.
    """

    def __init__(
        self, dit: VideoDiT, config: ModelConfig, latent: LatentSpec, num_views: int, run_block: BlockFunction = block
    ) -> None:
        self._dit, self._latent, self._num_views, self._run_block = dit, latent, num_views, run_block
        self._out_norm_eps = config.out_norm_eps
        self._blocks: list[Block] = list(dit.transformer_blocks)  # type: ignore[arg-type]
        rotary = video_rotary(config, latent).interleaved().to(dit.view_embed.device)
        self._rotary = rearrange(rotary, "(f l) d t -> f l d t", f=latent.num_frames)
        self._times = lru_cache(flow.MAX_CACHED_LEVELS)(self._embed_times)

    @torch.inference_mode()
    def text_kv(self, embedding: Tensor) -> TextKV:
        """The key/value cache of an instruction, from its `embedding [P, Ctext]` without padding."""
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
        """Calls `sink` with the features of the last of `num_steps` denoising forwards.

        With one step this is a forward on pure noise, as in the released code. Shapes as in `run`.
        """
        x, sigma = flow.integrate_to_last_step(
            lambda x, s: self._velocity(memory, x, s, texts), noise, num_steps, on_step
        )
        self.run(memory, x, sigma, texts, sink)

    def denoise(
        self,
        memory: Tensor,
        noise: Tensor,
        texts: Sequence[TextKV],
        num_steps: int,
        on_step: flow.OnStep | None = None,
    ) -> Tensor:
        """Future latents `[G, N, V, C, Fgen, H, W]`, fully denoised from `noise` (paper figure 9)."""
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
        """One forward of the frames `memory [G, V, C, Fmem, H, W]` and `future [G, N, V, C, Fgen, H, W]` at `sigma`.

        `texts` has one entry per group; their lengths may differ. `sink` receives the features. With `velocity`,
        returns the velocity in the shape and dtype of `future`, else None. A group's result does not depend on the
        other groups of the call.
        """
        temb, embedded = self._times(sigma)
        x = self._embed(memory, future)
        batches = list(self._micro_batches(x, texts))
        for layer, weights in enumerate(self._blocks):
            # without a sink, the last block's memory tokens are read only as keys and values
            memory_unread = sink is None and layer == len(self._blocks) - 1
            scope = AttentionScope(is_joint(layer), self._latent.num_memory_frames if memory_unread else 0)
            for batch in batches:
                self._run_block(weights, x[batch.rows], temb, self._rotary, [batch.context(layer)], scope)
            if sink is not None:
                sink(layer, x.flatten(1, 3))
        return (
            self._head(x[:, :, self._latent.num_memory_frames :].flatten(2, 3), embedded, future) if velocity else None
        )

    def trace_shapes(self) -> None:
        """Runs one forward. All other forwards differ only in the numbers of rows and of text tokens."""
        latent, channels, like = self._latent, self._dit.proj_in.in_features, self._dit.view_embed
        memory = like.new_zeros(1, self._num_views, channels, latent.num_memory_frames, latent.height, latent.width)
        future = like.new_zeros(1, 3, self._num_views, channels, latent.num_future_frames, latent.height, latent.width)
        text = self.text_kv(like.new_zeros(7, self._dit.caption_projection.linear_1.in_features))
        self.run(memory, future, 1.0, [text], lambda layer, x: None)

    def _velocity(self, memory: Tensor, future: Tensor, sigma: float, texts: Sequence[TextKV]) -> Tensor:
        out = self.run(memory, future, sigma, texts, velocity=True)
        assert out is not None
        return out

    def _embed_times(self, sigma: float) -> tuple[Tensor, Tensor]:
        """Modulation `[V, F, 1, 6, D]` (timestep 0 for memory frames) and head embedding `[V, D]` at `sigma`."""
        timestep = torch.tensor([0.0, sigma], device=self._rotary.device) * flow.TIMESTEPS
        temb, embedded = self._dit.embed_time(timestep.unsqueeze(-1).expand(-1, self._num_views), self._num_views)
        frames = [_MEMORY] * self._latent.num_memory_frames + [_GENERATED] * self._latent.num_future_frames
        return rearrange(temb[frames], "f v (s d) -> v f 1 s d", s=6).contiguous(), embedded[_GENERATED]

    def _embed(self, memory: Tensor, future: Tensor) -> Tensor:
        """Input tokens `[(G N), V, F, H*W, D]`. Memory tokens are projected once per group."""
        dtype = self._dit.view_embed.dtype
        memory, future = (self._dit.proj_in(pack(part).to(dtype)) for part in (memory, future))
        memory = memory.unsqueeze(1).expand(-1, future.shape[1], -1, -1, -1)
        tokens = torch.cat([memory, future], dim=3)
        return rearrange(tokens, "g n v (f l) d -> (g n) v f l d", f=self._latent.num_frames)

    def _micro_batches(self, x: Tensor, texts: Sequence[TextKV]) -> Iterator[_MicroBatch]:
        """Splits the rows of a call.

        On a CPU, a micro-batch has a few samples of one group. On a GPU, it has all samples if the instructions have
        equal lengths, else one group.
        """
        per_group = len(x) // len(texts)
        if x.device.type != "cpu" and len({text.length for text in texts}) == 1:
            yield _MicroBatch(slice(None), texts)
            return
        size = max(1, _MAX_CPU_ELEMENTS // x[0].numel()) if x.device.type == "cpu" else per_group
        for group, text in enumerate(texts):
            end = (group + 1) * per_group
            for start in range(group * per_group, end, size):
                yield _MicroBatch(slice(start, min(start + size, end)), [text])

    def _head(self, x: Tensor, embedded: Tensor, future: Tensor) -> Tensor:
        """Velocity of the generated tokens `x [(G N), V, Lgen, D]`, in the shape and dtype of `future`."""
        out = head(x, embedded.unsqueeze(1), self._dit.scale_shift_table, self._dit.proj_out, self._out_norm_eps)
        return unpack(out, self._latent).view(*future.shape[:3], -1, *future.shape[4:]).to(future.dtype)
