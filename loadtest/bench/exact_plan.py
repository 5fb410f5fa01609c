"""The workloads of the fast path's benchmarks: two sizes, seeded inputs, and a plan on the fast path alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor

from wavserve.core.spec import ExpertConfig, LatentSpec, ModelConfig, PlannerConfig, VideoConfig
from wavserve.models.fast.compiling import compiled
from wavserve.models.fast.expert import FastAction, FastValue
from wavserve.models.fast.graphs import Capture
from wavserve.models.fast.video import FastVideo, TextKV
from wavserve.models.flops import Workload
from wavserve.models.networks.plain import Draws, Scene, refit, refit_video, snr, standard_normal
from wavserve.models.runners.loading import DYNAMIC_LENGTH, DYNAMIC_ROWS
from wavserve.models.weights.weights import Models

SEED = 0
Pair = tuple[Tensor, Tensor]
Inputs = TypeVar("Inputs", Scene, Draws)
SLICE = 8
"""Default number of video samples that are imagined, scored and dropped together."""


def tiny() -> Workload:
    """The sizes of the preset `tiny`."""
    video = VideoConfig(16, 16, num_layers=4, num_heads=6, head_dim=16, caption_channels=64)
    config = ModelConfig(video, _expert(10, 3, 16, 57), _expert(15, 3, 16, 54))
    planner = PlannerConfig(
        num_iterations=3, num_video_samples=8, num_value_samples=3, video_elite_fraction=0.5, value_elite_fraction=0.25
    )
    return Workload(config, LatentSpec(4, 2, 4, 4), planner, num_views=2, chunk=16, num_prompt=40, num_padded=64)


def libero_shapes() -> Workload:
    """LIBERO shapes on a small model: two views of 8x8 latents, 4 memory and 2 future frames, N=30, M=5, K=5."""
    video = VideoConfig(128, 128, num_layers=8, num_heads=4, head_dim=64, caption_channels=512)
    config = ModelConfig(video, _expert(10, 2, 32, 57), _expert(15, 2, 32, 54))
    return Workload(
        config, LatentSpec(4, 2, 8, 8), PlannerConfig(), num_views=2, chunk=36, num_prompt=20, num_padded=128
    )


def _expert(channels: int, num_heads: int, head_dim: int, rope_base: int) -> ExpertConfig:
    return ExpertConfig(channels, channels, num_heads, head_dim, rope_base)


CASES = {"tiny": tiny, "libero_shapes": libero_shapes}


def example_inputs(case: Workload, seed: int = SEED) -> tuple[Scene, Draws]:
    """A seeded scene and every noise of a plan."""
    generator = torch.Generator().manual_seed(seed + 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    latent, planner, config = case.latent, case.planner, case.config
    frames = (case.num_views, config.video.in_channels, latent.num_future_frames, latent.height, latent.width)
    value = (case.chunk, config.value.in_channels)
    action = config.action.in_channels
    num_rows = planner.num_video_samples * planner.num_value_samples
    memory = normal(*frames[:2], latent.num_memory_frames, *frames[3:])
    text = torch.zeros(case.num_padded, config.video.caption_channels)
    text[: case.num_prompt] = normal(case.num_prompt, config.video.caption_channels)
    mask = (torch.arange(case.num_padded) < case.num_prompt).float()
    scene = Scene(memory, text, mask, normal(action))
    k = planner.num_iterations
    video_draws = normal(k, planner.num_video_samples, *frames)
    return scene, Draws(
        video_draws, normal(k, num_rows, *value), normal(*frames), normal(*value), normal(case.chunk, action)
    )


def moved(inputs: tuple[Scene, Draws], device: torch.device) -> tuple[Scene, Draws]:
    """A scene and its draws on a device."""
    scene, draws = inputs
    return _moved(scene, device), _moved(draws, device)


def _moved(inputs: Inputs, device: torch.device) -> Inputs:
    return type(inputs)(*(getattr(inputs, each.name).to(device) for each in fields(inputs)))


class FastPlan:
    """A plan on the fast path. Like the service, it imagines, scores and drops one slice after another."""

    def __init__(
        self,
        models: Models,
        case: Workload,
        compile_blocks: bool = False,
        capture: Capture | None = None,
        slice_size: int = SLICE,
    ) -> None:
        """The plan runs on the models' device. `capture` captures the experts' graphs; None: no graphs."""
        config, tokens = case.config, case.num_tokens
        video = partial(FastVideo, models.video, config, case.latent, case.num_views)
        value = partial(FastValue, models.value, config, case.chunk, contexts=[tokens])
        action = partial(FastAction, models.action, config, case.chunk, contexts=[tokens, case.chunk])
        self._case = case
        device = models.video.view_embed.device
        self._video = compiled("video", video, DYNAMIC_LENGTH, device, True) if compile_blocks else video()
        self._value = compiled("value", value, DYNAMIC_ROWS, device, True) if compile_blocks else value()
        self._action = compiled("action", action, DYNAMIC_ROWS, device, True) if compile_blocks else action()
        if capture is not None:
            self._value.use_graphs(capture)
            self._action.use_graphs(capture)
        self._slice_size = slice_size
        self._slab = models.video.view_embed.new_empty(config.video.num_layers, slice_size, tokens, config.video.width)

    @torch.inference_mode()
    def plan(self, scene: Scene, draws: Draws) -> Tensor:
        """Actions `[T, action channels]`."""
        config = self._case.planner
        text = self.text_kv(scene)
        video, value = standard_normal(draws.final_video[:1]), standard_normal(draws.final_value)
        for k in range(config.num_iterations):
            futures, noises = draws.video[k] * video[1] + video[0], draws.value[k] * value[1] + value[0]
            by_sample = self.scores(scene, text, futures, noises)
            video = refit_video(video, futures[by_sample.amax(1).topk(config.num_video_elites).indices], config)
            value = refit(value, noises[by_sample.flatten().topk(config.num_value_elites).indices], config)
        return self._decode(scene, draws, text, video, value)

    def text_kv(self, scene: Scene) -> TextKV:
        """Keys and values of the scene's instruction."""
        return self._video.text_kv(scene.text[scene.text_mask.bool()])

    @torch.inference_mode()
    def scores(self, scene: Scene, text: TextKV, futures: Tensor, noises: Tensor) -> Tensor:
        """SNR `[N, M]` of `futures [N, V, C, F, H, W]`, each with its own M of `noises [(N M), T, C]`."""
        config, slices = self._case.planner, []
        grouped = rearrange(noises, "(n m) t c -> n m t c", m=config.num_value_samples)
        for first in range(0, len(futures), self._slice_size):
            rows = slice(first, first + self._slice_size)
            kv = self._value.cross_kv(self._imagine(scene, futures[rows], text))
            slices.append(snr(self._value.integrate(grouped[rows], kv, config.num_flow_steps)[..., -1]))
        return torch.cat(slices)

    def _imagine(self, scene: Scene, futures: Tensor, text: TextKV) -> Callable[[int], Tensor]:
        rows = len(futures)
        self._video.run(scene.memory[None], futures[None], 1.0, [text], self._keep)
        return lambda layer: self._slab[layer, :rows]

    def _keep(self, layer: int, x: Tensor) -> None:
        self._slab[layer, : len(x)] = x

    def _decode(self, scene: Scene, draws: Draws, text: TextKV, video: Pair, value: Pair) -> Tensor:
        read = self._imagine(scene, (draws.final_video * video[1] + video[0])[None], text)
        noise = (draws.final_value * value[1] + value[0])[None]
        features = self._value.features(noise, self._value.cross_kv(read))
        kv = self._action.cross_kv(read), self._action.value_kv(features.__getitem__)
        steps = self._case.planner.num_flow_steps
        return self._action.integrate(draws.action[None], scene.history[None], *kv, steps)[0]
