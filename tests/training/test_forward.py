"""The training forwards equal the forwards that serve, to 1e-5, and gradients reach every weight."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange, repeat
from torch import Tensor

from wavserve.core.spec import LatentSpec, ModelConfig
from wavserve.models.networks.layers import Context
from wavserve.models.networks.maths import video_rotary
from wavserve.models.networks.plain import MASKED
from wavserve.models.weights.preset_specs import PRESETS
from wavserve.models.weights.weights import Models, random_models
from wavserve.training.forward import expert_forward, video_forward
from wavserve.training.initial import initial_models

LATENT = LatentSpec(num_memory_frames=1, num_future_frames=1, height=4, width=4)
CONFIG: ModelConfig = PRESETS["tiny"]().spec.model
B, V, F, L, R, T = 6, 2, 2, 16, 3, 16
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module")
def models() -> Models:
    """Random weights: no bias, table or gate is 0, as they are in initial ones."""
    return random_models(CONFIG, seed=3)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text() -> Context:
    """Two instructions, the second one shorter."""
    mask = torch.zeros(2, 9)
    mask[1, 5:] = MASKED
    return Context(draw(2, 9, CONFIG.video.caption_channels, seed=1), mask)


def test_the_video_forward_equals_the_plain_one(models: Models) -> None:
    frames, rotary, captions = draw(B, V, F, L, CONFIG.video.in_channels), video_rotary(CONFIG, LATENT), text()
    timestep = torch.stack([torch.zeros(B), torch.rand(B) * 1000], dim=1)
    out = video_forward(models.video, frames, timestep, captions, rotary)
    per_token = repeat(timestep, "b f -> b (v f l)", v=V, l=L)
    assert captions.mask is not None
    rows = Context(captions.tokens.repeat_interleave(3, 0), captions.mask.repeat_interleave(3, 0))
    plain = models.video(frames.flatten(1, 3), per_token, rows, rotary)
    for ours, theirs in zip(out.features, plain.features, strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
    torch.testing.assert_close(out.velocity.flatten(1, 3), plain.velocity, **TOLERANCE)


def test_one_timestep_may_serve_all_rows(models: Models) -> None:
    frames, rotary = draw(B, V, F, L, CONFIG.video.in_channels), video_rotary(CONFIG, LATENT)
    one = torch.tensor([[0.0, 1000.0]])
    shared = video_forward(models.video, frames, one, text(), rotary).velocity
    torch.testing.assert_close(shared, video_forward(models.video, frames, one.expand(B, 2), text(), rotary).velocity)


@pytest.mark.parametrize("with_value", [True, False])
def test_the_action_forward_equals_the_plain_one(models: Models, with_value: bool) -> None:
    video = [draw(B, V * F * L, CONFIG.video.width, seed=i) for i in range(CONFIG.video.num_layers)]
    value = [draw(B, T, CONFIG.value.width, seed=9 + i) for i in range(CONFIG.video.num_layers)]
    samples, history = draw(B, R, T, CONFIG.action.in_channels), draw(B, CONFIG.action.in_channels, seed=5)
    timestep = torch.rand(B, R, generator=torch.Generator().manual_seed(0)) * 1000
    is_clean = torch.arange(T) < torch.tensor([[0, 1, 4]] * B)[..., None]
    features = [video, value] if with_value else [video]
    out = expert_forward(models.action, samples, timestep, features, history, is_clean)

    def tiled(each: list[Tensor]) -> list[Tensor]:
        return [x.repeat_interleave(R, 0) for x in each]

    per_token = rearrange(timestep.unsqueeze(-1).masked_fill(is_clean, 0.0), "b r t -> (b r) t")
    plain = models.action(
        samples.flatten(0, 1),
        per_token,
        tiled(video),
        tiled(value) if with_value else None,
        history.repeat_interleave(R, 0).unsqueeze(1),
    )
    noisy = ~is_clean.flatten(0, 1)  # nobody reads the velocity of a clean token
    torch.testing.assert_close(out.velocity.flatten(0, 1)[noisy], plain.velocity[noisy], **TOLERANCE)
    for ours, theirs in zip(out.features, plain.features, strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), theirs, **TOLERANCE)


def test_the_value_forward_equals_the_plain_one(models: Models) -> None:
    video = [draw(B, V * F * L, CONFIG.video.width, seed=i) for i in range(CONFIG.video.num_layers)]
    samples, timestep = draw(B, 1, T, CONFIG.value.in_channels), torch.full((B, 1), 1000.0)
    out = expert_forward(models.value, samples, timestep, [video])
    plain = models.value(samples.squeeze(1), timestep.expand(-1, T), video)
    torch.testing.assert_close(out.velocity.squeeze(1), plain.velocity, **TOLERANCE)


def test_untrained_value_features_do_not_reach_the_actions() -> None:
    models = initial_models(CONFIG, seed=0)
    video = [draw(B, V * F * L, CONFIG.video.width, seed=i) for i in range(CONFIG.video.num_layers)]
    samples, timestep = draw(B, R, T, CONFIG.action.in_channels), torch.full((B, R), 500.0)
    first, second = (
        expert_forward(
            models.action, samples, timestep, [video, [draw(B, T, CONFIG.value.width, seed=s)] * len(video)]
        ).velocity
        for s in (1, 2)
    )
    assert torch.equal(first, second)


def test_the_same_seed_gives_the_same_initial_weights() -> None:
    first, second = (initial_models(CONFIG, seed=4).video.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = initial_models(CONFIG, seed=5).video.state_dict()
    assert not torch.equal(first["proj_in.weight"], other["proj_in.weight"])
