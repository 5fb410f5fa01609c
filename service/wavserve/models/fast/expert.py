"""The experts' fast path: the same output on the same weights, without repeated work.

Keys and values of the video features and of the value features are computed once per sample, not in every flow step and
row. The M value samples of one video sample form one grouped query on its keys and values. Each timestep is embedded
once and cached. The plain forward in `networks/expert` is the oracle. This module knows neither planning nor the arena.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from wavserve.core.spec import ModelConfig
from wavserve.models.fast.fused import BlockFunction, KeyValue, block, key_value
from wavserve.models.fast.graphs import Capture, Contexts, Graphs
from wavserve.models.networks import flow
from wavserve.models.networks.expert import ExpertDiT
from wavserve.models.networks.guidance import Prefix
from wavserve.models.networks.layers import Block
from wavserve.models.networks.maths import token_rotary

Read = Callable[[int], Tensor]
"""`read(layer)` returns the features `[R, L, width]` after block `layer`. The fast path does not keep them."""

_VIDEO, _VALUE = 0, 1
"""Indices of a block's cross-attentions: on video features, on value features."""


class FastExpert(ABC):
    """The shared part of both experts' fast paths.

    It holds no weights of its own. Without CUDA graphs it caches only the time embeddings of noise levels. `length` is
    the number T of a sample's tokens, without the history token. `contexts` is the number V*L of a video sample's
    tokens and, for the action expert, also the number of value tokens; only `trace_shapes` needs `contexts`.
    """

    def __init__(
        self,
        dit: ExpertDiT,
        config: ModelConfig,
        length: int,
        run_block: BlockFunction = block,
        contexts: Sequence[int] = (),
    ) -> None:
        self._dit, self._length, self._run_block, self._contexts = dit, length, run_block, contexts
        self._blocks: list[Block] = list(dit.blocks)  # type: ignore[arg-type]
        self._dtype = dit.scale_shift_table.dtype
        table = token_rotary(length + 1, dit.rope_base, dit.scale_shift_table.shape[1], dit.rope_theta)
        self._rotary = table.interleaved().to(dit.scale_shift_table.device)
        self._times = lru_cache(flow.MAX_CACHED_LEVELS)(self._embed_times)  # usually one entry per flow step
        self._graphs: Graphs | None = None

    def use_graphs(self, capture: Capture) -> None:
        """Captures graphs. From now on, velocities come from them, and only one thread at a time may run this model."""
        self._graphs = Graphs(self._layers, capture)
        self.trace_shapes()  # so that a failing capture fails now

    @torch.inference_mode()
    def cross_kv(self, read: Read) -> list[KeyValue]:
        """Keys and values of the video features `read(layer) [R, V*L, D]` for each block, once per video sample."""
        return [
            self._to_static(_VIDEO, layer, key_value(block.attn2, read(layer).to(self._dtype)))
            for layer, block in enumerate(self._blocks)
        ]

    def trace_shapes(self) -> None:
        """Runs a forward on one row of contexts and one on two.

        The compiler makes a separate graph for one context row, because the strides of its views differ. No other
        dimension of size 1 needs a separate graph: `compiling` sets `backed_size_oblivious`.
        """
        for rows in (1, 2):
            self._trace_rows(rows)

    @abstractmethod
    def _trace_rows(self, rows: int) -> None: ...

    def _zeros(self, *shape: int) -> Tensor:
        return self._dit.scale_shift_table.new_zeros(shape)

    @torch.inference_mode()
    def _velocity(
        self,
        samples: Tensor,
        sigma: float,
        contexts: Contexts,
        history: Tensor | None = None,
        sink: Callable[[Tensor], None] | None = None,
        is_clean: Tensor | None = None,
    ) -> Tensor:
        """Velocity of `samples [R, M, T, C]` at noise level `sigma`, on the keys and values `contexts`.

        `history [R, C]` becomes the first token, with timestep 0. `sink` is called with `x [(R M), T(+1), A]` after
        each block. `is_clean [(R M), T(+1)]`: tokens with timestep 0; None: only the history token.
        """
        tokens = samples.to(self._dtype)
        if history is not None:
            first = history.to(self._dtype)[:, None, None].expand(-1, samples.shape[1], 1, -1)
            tokens = torch.cat([first, tokens], dim=2)
        times = self._times(sigma, history is not None) if is_clean is None else modulation(self._dit, sigma, is_clean)
        temb, embedded = times
        x = self._dit.proj_in(tokens.flatten(0, 1))
        if self._graphs is not None and sink is None:
            self._graphs(x, temb, contexts)
        else:
            self._layers(x, temb, contexts, sink)
        return self._dit.head(x[:, -self._length :], embedded).view(*samples.shape[:3], -1).to(samples.dtype)

    def _layers(
        self, x: Tensor, temb: Tensor, contexts: Contexts, sink: Callable[[Tensor], None] | None = None
    ) -> None:
        rotary = self._rotary[: x.shape[1]]
        for layer, weights in enumerate(self._blocks):
            self._run_block(weights, x, temb, rotary, [context[layer] for context in contexts])
            if sink is not None:
                sink(x)

    def _to_static(self, attention: int, layer: int, context: KeyValue) -> KeyValue:
        return context if self._graphs is None else self._graphs.to_static(attention, layer, context)

    def _embed_times(self, sigma: float, history: bool) -> tuple[Tensor, Tensor]:
        """Modulation `[S, 6, A]` and the samples' head embedding `[A]`. S is 1, or T + 1 with a history token."""
        is_clean = torch.tensor([True] + [False] * self._length if history else [False])
        return modulation(self._dit, sigma, is_clean)


def modulation(dit: ExpertDiT, sigma: float, is_clean: Tensor) -> tuple[Tensor, Tensor]:
    """Modulation `[..., 6, A]` and the samples' head embedding `[A]`. Tokens with `is_clean [...]` have timestep 0."""
    timestep = torch.tensor([sigma, 0.0], device=dit.scale_shift_table.device) * flow.TIMESTEPS
    temb, embedded = dit.time_embed(timestep)
    return rearrange(temb, "s (t a) -> s t a", t=6)[is_clean.long()], embedded[0]


class FastValue(FastExpert):
    """The value expert's fast path. Its oracle is `networks.expert.value_dit`."""

    def _trace_rows(self, rows: int) -> None:
        kv = self.cross_kv(lambda layer: self._zeros(rows, self._contexts[0], self._dit.context_widths[0]))
        self.velocity(self._zeros(rows, 3, self._length, self._dit.proj_in.in_features), 1.0, kv)

    def velocity(self, samples: Tensor, sigma: float, kv: Sequence[KeyValue]) -> Tensor:
        """Velocity `[R, M, T, C]` of `samples [R, M, T, C]` at `sigma`.

        `kv` holds keys and values of R video samples. M rows of `samples` attend to each.
        """
        return self._velocity(samples, sigma, [kv])

    def integrate(
        self, noise: Tensor, kv: Sequence[KeyValue], num_steps: int, on_step: flow.OnStep | None = None
    ) -> Tensor:
        """Value tokens `[R, M, T, C]`, integrated from `noise [R, M, T, C]` in `num_steps` Euler steps."""
        return flow.integrate(lambda x, sigma: self.velocity(x, sigma, kv), noise, num_steps, on_step)

    def features(self, noise: Tensor, kv: Sequence[KeyValue]) -> list[Tensor]:
        """Value features after each block `[R, T, A]`, from one forward of `noise [R, T, C]` at timestep 1000."""
        features: list[Tensor] = []
        self._velocity(noise.unsqueeze(1), 1.0, [kv], sink=lambda x: features.append(x.clone()))
        return features


class FastAction(FastExpert):
    """The action expert's fast path. Its oracle is `networks.expert.action_dit` (paper equation 3)."""

    def _trace_rows(self, rows: int) -> None:
        lengths, widths, channels = self._contexts, self._dit.context_widths, self._dit.proj_in.in_features
        video_kv = self.cross_kv(lambda layer: self._zeros(rows, lengths[0], widths[0]))
        value_kv = self.value_kv(lambda layer: self._zeros(rows, lengths[1], widths[1]))
        noise, history = self._zeros(rows, self._length, channels), self._zeros(rows, channels)
        self.velocity(noise, 1.0, history, video_kv, value_kv)

    @torch.inference_mode()
    def value_kv(self, read: Read) -> list[KeyValue]:
        """Keys and values of the value features `read(layer) [R, T, Avalue]` for each block, once per plan."""
        return [
            self._to_static(_VALUE, layer, key_value(block.attn3, read(layer).to(self._dtype)))
            for layer, block in enumerate(self._blocks)
            if block.attn3 is not None
        ]

    def velocity(
        self,
        samples: Tensor,
        sigma: float,
        history: Tensor | None,
        video_kv: Sequence[KeyValue],
        value_kv: Sequence[KeyValue] | None,
    ) -> Tensor:
        """Velocity `[R, T, C]` of `samples [R, T, C]` at `sigma`.

        `history [R, C]`: None leaves out the history token. `value_kv`: None skips `attn3`.
        """
        contexts = [video_kv] if value_kv is None else [video_kv, value_kv]
        return self._velocity(samples.unsqueeze(1), sigma, contexts, history).squeeze(1)

    def integrate_after(
        self,
        prefix: Prefix,
        noise: Tensor,
        history: Tensor,
        contexts: tuple[Sequence[KeyValue], Sequence[KeyValue]],
        num_steps: int,
        on_step: flow.OnStep | None = None,
    ) -> Tensor:
        """Actions `[R, T, C]` that continue a clean prefix, integrated from `noise [R, T, C]` (arXiv 2512.05964).

        `contexts`: the keys and values of the video features and of the value features.
        """
        first = torch.ones_like(prefix.is_frozen[:, :1])  # the history token
        is_clean = torch.cat([first, prefix.is_frozen], dim=1)

        def velocity(x: Tensor, sigma: float) -> Tensor:
            samples = prefix.put_into(x).unsqueeze(1)
            return self._velocity(samples, sigma, contexts, history, is_clean=is_clean).squeeze(1)

        return prefix.put_into(flow.integrate(velocity, noise, num_steps, on_step))

    def integrate(
        self,
        noise: Tensor,
        history: Tensor | None,
        video_kv: Sequence[KeyValue],
        value_kv: Sequence[KeyValue] | None,
        num_steps: int,
        on_step: flow.OnStep | None = None,
    ) -> Tensor:
        """Actions `[R, T, C]`, integrated from `noise [R, T, C]`. Other arguments as in `velocity`."""

        def velocity(x: Tensor, sigma: float) -> Tensor:
            return self.velocity(x, sigma, history, video_kv, value_kv)

        return flow.integrate(velocity, noise, num_steps, on_step)
