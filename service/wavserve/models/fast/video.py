"""The video transformer restructured: the same output on the same weights, without the work that repeats itself.

Text keys and values once an instruction and without padding; timesteps embedded once each and kept (a forward has two:
`t` and 0), modulation applied to memory and generated tokens as slices; few samples at a time, so that the working set
fits the cache; no output nobody reads. Called by the video runner. The plain forward in `video` is its oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from wavserve.core.spec import LatentSpec, ModelConfig
from wavserve.models.fast.fused import BlockStep, KeyValue, Reach, block, key_value
from wavserve.models.networks import flow
from wavserve.models.networks.layers import Block, head
from wavserve.models.networks.maths import pack, unpack, video_rotary
from wavserve.models.networks.video import VideoDiT, is_joint

Sink = Callable[[int, Tensor], None]
"""`sink(layer, x [(G N), V*L, D])` after each block. The next block overwrites `x`: copy what is kept."""

_CACHED = 1 << 19
"""Elements of `[rows, V, L, D]` worked on at once on a CPU, so that the feed-forward's stay in the cache."""

_MEMORY, _NOW = 0, 1
"""Timesteps of a forward: that of memory tokens, and the current one."""


@dataclass(frozen=True, slots=True)
class TextKV:
    """An instruction as each block reads it: keys and values `[1, heads, prompt, head dim]`, without padding."""

    blocks: tuple[KeyValue, ...]

    @property
    def length(self) -> int:
        return self.blocks[0].key.shape[2]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Samples worked on at once, and the instructions that equal shares of them read."""

    rows: slice
    texts: Sequence[TextKV]

    def context(self, layer: int) -> KeyValue:
        """What block `layer` reads of them."""
        found = [text.blocks[layer] for text in self.texts]
        return found[0] if len(found) == 1 else KeyValue(*(torch.cat(part) for part in zip(*found, strict=True)))


class FastVideo:
    """Fast forwards of `dit` for samples of one latent shape. Holds no weights, and keeps nothing of what it ran but
    the embeddings of noise levels."""

    def __init__(
        self, dit: VideoDiT, config: ModelConfig, latent: LatentSpec, num_views: int, step: BlockStep = block
    ) -> None:
        self._dit, self._latent, self._num_views, self._step = dit, latent, num_views, step
        self._out_norm_eps = config.out_norm_eps
        self._blocks: list[Block] = list(dit.transformer_blocks)  # type: ignore[arg-type]
        rotary = video_rotary(config, latent).interleaved().to(dit.view_embed.device)
        self._rotary = rearrange(rotary, "(f l) d t -> f l d t", f=latent.num_frames)
        self._times = lru_cache(flow.MAX_LEVELS)(self._embed_times)

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
        for layer, weights in enumerate(self._blocks):
            unread = sink is None and layer == len(self._blocks) - 1  # then memory tokens serve as keys and values only
            reach = Reach(is_joint(layer), self._latent.num_memory_frames if unread else 0)
            for chunk in chunks:
                self._step(weights, x[chunk.rows], temb, self._rotary, [chunk.context(layer)], reach)
            if sink is not None:
                sink(layer, x.flatten(1, 3))
        return (
            self._head(x[:, :, self._latent.num_memory_frames :].flatten(2, 3), embedded, future) if velocity else None
        )

    def trace_shapes(self) -> None:
        """A forward that is like every other but for its numbers of rows and of text tokens; for the compiler."""
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
        """Modulation `[V, F, 1, 6, D]` (memory frames: timestep 0); the generated tokens' head embedding `[V, D]`."""
        timestep = torch.tensor([0.0, sigma], device=self._rotary.device) * flow.TIMESTEPS
        temb, embedded = self._dit.embed_time(timestep.unsqueeze(-1).expand(-1, self._num_views), self._num_views)
        frames = [_MEMORY] * self._latent.num_memory_frames + [_NOW] * self._latent.num_future_frames
        return rearrange(temb[frames], "f v (s d) -> v f 1 s d", s=6).contiguous(), embedded[_NOW]

    def _embed(self, memory: Tensor, future: Tensor) -> Tensor:
        """Input tokens `[(G N), V, F, H*W, D]`; the memory's are projected once a group."""
        dtype = self._dit.view_embed.dtype
        memory, future = (self._dit.proj_in(pack(part).to(dtype)) for part in (memory, future))
        memory = memory.unsqueeze(1).expand(-1, future.shape[1], -1, -1, -1)
        tokens = torch.cat([memory, future], dim=3)
        return rearrange(tokens, "g n v (f l) d -> (g n) v f l d", f=self._latent.num_frames)

    def _chunks(self, x: Tensor, texts: Sequence[TextKV]) -> Iterator[_Chunk]:
        """On a CPU a few samples of one group at a time; else all at once where the instructions are equally long."""
        per_group = len(x) // len(texts)
        if x.device.type != "cpu" and len({text.length for text in texts}) == 1:
            yield _Chunk(slice(None), texts)
            return
        size = max(1, _CACHED // x[0].numel()) if x.device.type == "cpu" else per_group
        for group, text in enumerate(texts):
            end = (group + 1) * per_group
            for start in range(group * per_group, end, size):
                yield _Chunk(slice(start, min(start + size, end)), [text])

    def _head(self, x: Tensor, embedded: Tensor, future: Tensor) -> Tensor:
        """Velocity, in the shape and dtype of `future`, of generated tokens `x [(G N), V, Lgen, D]`."""
        out = head(x, embedded.unsqueeze(1), self._dit.scale_shift_table, self._dit.proj_out, self._out_norm_eps)
        return unpack(out, self._latent).view(*future.shape[:3], -1, *future.shape[4:]).to(future.dtype)
