"""A small configuration that no parity fixture has: three views, widths not divisible by 6, different expert widths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wavserve.core.spec import ExpertConfig, LatentSpec, ModelConfig, PlannerConfig, VideoConfig
from wavserve.models.flops import Workload
from wavserve.models.networks.plain import Draws, Plain, Scene
from wavserve.models.weights.weights import Models, random_models


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The models are so small that several threads would wait for each other longer than they compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def odd() -> Workload:
    """Piper-like: 28 and 17 channels, 54 steps, 3 memory frames, latents of 2x3."""
    config = ModelConfig(
        VideoConfig(12, 12, num_layers=5, num_heads=5, head_dim=8, caption_channels=24),
        value=ExpertConfig(17, 17, num_heads=2, head_dim=14, rope_base=57),
        action=ExpertConfig(28, 28, num_heads=4, head_dim=12, rope_base=54),
    )
    planner = PlannerConfig(
        num_iterations=2,
        num_video_samples=5,
        num_value_samples=2,
        num_flow_steps=4,
        video_elite_fraction=0.6,
        value_elite_fraction=0.3,
    )
    return Workload(config, LatentSpec(3, 2, 2, 3), planner, num_views=3, chunk=54, num_prompt=7, num_padded=11)


@pytest.fixture(scope="session")
def models(odd: Workload) -> Models:
    return random_models(odd.config, seed=3)


@pytest.fixture(scope="session")
def plain(odd: Workload, models: Models) -> Plain:
    return Plain(models, odd.config, odd.latent)


@pytest.fixture(scope="session")
def scene(odd: Workload) -> Scene:
    generator = torch.Generator().manual_seed(1)
    latent, video = odd.latent, odd.config.video
    memory = torch.randn(
        odd.num_views,
        video.in_channels,
        latent.num_memory_frames,
        latent.height,
        latent.width,
        generator=generator,
    )
    text = torch.randn(odd.num_padded, video.caption_channels, generator=generator)
    mask = (torch.arange(odd.num_padded) < odd.num_prompt).to(torch.uint8)
    return Scene(memory, text, mask, torch.randn(odd.config.action.in_channels, generator=generator))


@pytest.fixture(scope="session")
def draws(odd: Workload) -> Draws:
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    planner, latent, config = odd.planner, odd.latent, odd.config
    frames = (odd.num_views, config.video.in_channels, latent.num_future_frames, latent.height, latent.width)
    value = (odd.chunk, config.value.in_channels)
    k, n, m = planner.num_iterations, planner.num_video_samples, planner.num_value_samples
    action = normal(odd.chunk, config.action.in_channels)
    return Draws(normal(k, n, *frames), normal(k, n * m, *value), normal(*frames), normal(*value), action)


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    return Path(__file__).parents[1] / "parity"
