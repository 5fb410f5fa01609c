"""The fast path against the plain path, its oracle, on a configuration that no parity fixture has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch import Tensor

from tests.models.fast.paths import plan_fast
from wavserve.models.fast.expert import FastAction, FastValue
from wavserve.models.fast.video import FastVideo, TextKV
from wavserve.models.flops import Workload
from wavserve.models.networks.plain import Draws, Plain, Scene, plain_plan
from wavserve.models.weights.weights import Models, random_models

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def video(odd: Workload, models: Models) -> FastVideo:
    return FastVideo(models.video, odd.config, odd.latent, odd.num_views)


@pytest.fixture(scope="module")
def text(video: FastVideo, scene: Scene) -> TextKV:
    return video.text_kv(scene.text[scene.text_mask.bool()])


@pytest.fixture(scope="module")
def features(plain: Plain, scene: Scene, draws: Draws) -> list[Tensor]:
    return list(plain.imagine(scene, draws.video[0]))


def test_features_of_every_block_agree_with_the_oracle(
    plain: Plain, scene: Scene, draws: Draws, video: FastVideo, text: TextKV, features: list[Tensor]
) -> None:
    fast: list[Tensor] = []

    video.run(scene.memory[None], draws.video[0][None], 1.0, [text], lambda layer, x: fast.append(x.clone()))

    for ours, oracle in zip(fast, features, strict=True):
        assert ours.shape == oracle.shape
        torch.testing.assert_close(ours, oracle, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("sigma", [1.0, 0.4375, 0.1])
def test_velocity_agrees_with_the_oracle_with_and_without_features(
    plain: Plain, scene: Scene, draws: Draws, video: FastVideo, text: TextKV, sigma: float
) -> None:
    oracle = plain.velocity(scene, draws.video[0], sigma)
    inputs = scene.memory[None], draws.video[0][None], sigma, [text]

    without_features = video.run(*inputs, velocity=True)
    with_features = video.run(*inputs, lambda layer, x: None, velocity=True)

    torch.testing.assert_close(without_features[0], oracle, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(with_features[0], oracle, atol=TOLERANCE, rtol=0)


def test_no_velocity_is_returned_unless_requested(scene: Scene, draws: Draws, video: FastVideo, text: TextKV) -> None:
    assert video.run(scene.memory[None], draws.video[0][None], 1.0, [text]) is None


def test_full_denoising_agrees_with_the_oracle(
    plain: Plain, scene: Scene, draws: Draws, video: FastVideo, text: TextKV
) -> None:
    oracle = plain.denoise(scene, draws.video[0], 3)

    ours = video.denoise(scene.memory[None], draws.video[0][None], [text], 3)

    torch.testing.assert_close(ours[0], oracle, atol=TOLERANCE, rtol=0)


def test_a_group_does_not_depend_on_other_groups_of_the_call(
    scene: Scene, draws: Draws, video: FastVideo, text: TextKV
) -> None:
    other = video.text_kv(scene.text.flip(0)[:3])  # shorter
    memory = torch.stack([scene.memory.flip(0), scene.memory])
    future = torch.stack([draws.video[1], draws.video[0]])

    alone = video.run(memory[1:], future[1:], 1.0, [text], velocity=True)
    together = video.run(memory, future, 1.0, [other, text], velocity=True)

    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-2


def test_inputs_are_not_modified(scene: Scene, draws: Draws, video: FastVideo, text: TextKV) -> None:
    memory, future = scene.memory[None].clone(), draws.video[0][None].clone()

    video.run(memory, future, 1.0, [text], velocity=True)

    assert torch.equal(memory[0], scene.memory)
    assert torch.equal(future[0], draws.video[0])


def test_grouped_value_samples_agree_with_the_oracle(
    odd: Workload, models: Models, plain: Plain, draws: Draws, features: list[Tensor]
) -> None:
    value, num_values = FastValue(models.value, odd.config, odd.chunk), odd.planner.num_value_samples
    tiled = [feature.repeat_interleave(num_values, 0) for feature in features]
    oracle = plain.integrate_value(tiled, draws.value[0], 4)

    grouped = rearrange(draws.value[0], "(n m) t c -> n m t c", m=num_values)
    ours = value.integrate(grouped, value.cross_kv(features.__getitem__), 4)

    torch.testing.assert_close(rearrange(ours, "n m t c -> (n m) t c"), oracle, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("with_history", [True, False])
@pytest.mark.parametrize("with_value", [True, False])
def test_actions_of_several_plans_agree_with_the_oracle(
    odd: Workload, models: Models, scene: Scene, features: list[Tensor], with_history: bool, with_value: bool
) -> None:
    rows, action = 2, FastAction(models.action, odd.config, odd.chunk)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(rows, odd.chunk, odd.config.action.in_channels, generator=generator)
    history = torch.stack([scene.history, -scene.history]) if with_history else None
    value_features = [
        torch.randn(rows, odd.chunk, odd.config.value.width, generator=generator)
        for _ in range(odd.config.video.num_layers)
    ]
    video = [feature[:rows] for feature in features]
    oracle = models.action(
        noise,
        torch.full(noise.shape[:2], 300.0),
        video,
        value_features if with_value else None,
        None if history is None else history[:, None],
    ).velocity

    value_kv = action.value_kv(value_features.__getitem__) if with_value else None
    ours = action.velocity(noise, 0.3, history, action.cross_kv(video.__getitem__), value_kv)

    torch.testing.assert_close(ours, oracle, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"per_view_noise": True}, {"num_video_steps": 3}])
def test_a_whole_plan_agrees_with_the_oracle(
    odd: Workload, models: Models, plain: Plain, scene: Scene, draws: Draws, changes: dict[str, object]
) -> None:
    work = replace(odd, planner=replace(odd.planner, **changes))
    oracle, iterations = plain_plan(plain, scene, draws, work.planner)

    ours, snrs = plan_fast(work, models, scene, draws)

    for snr, iteration in zip(snrs, iterations, strict=True):
        torch.testing.assert_close(snr, iteration.snr, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(ours, oracle, atol=TOLERANCE, rtol=0)


def test_published_mode_credits_scores_to_other_video_samples(
    odd: Workload, plain: Plain, scene: Scene, draws: Draws
) -> None:
    snrs = [
        plain_plan(plain, scene, draws, replace(odd.planner, mode=mode))[1][0].snr for mode in ("paper", "published")
    ]

    assert (snrs[0] - snrs[1]).abs().max() > 1e-2


def test_bfloat16_stays_near_float32(odd: Workload, scene: Scene, draws: Draws, plain: Plain) -> None:
    """One forward of each model differs only by rounding."""
    half = random_models(odd.config, seed=3, dtype=torch.bfloat16)
    features: list[Tensor] = []
    video = FastVideo(half.video, odd.config, odd.latent, odd.num_views)
    text = video.text_kv(scene.text[scene.text_mask.bool()])
    video.run(scene.memory[None], draws.video[0][None], 1.0, [text], lambda layer, x: features.append(x.clone()))
    value = FastValue(half.value, odd.config, odd.chunk)
    noise = draws.value[0][:1]
    ours = value.velocity(noise[None], 1.0, value.cross_kv(lambda layer: features[layer][:1]))[0]
    oracle_features = plain.imagine(scene, draws.video[0])
    oracle = plain.models.value(noise, torch.full((1, odd.chunk), 1000.0), [f[:1] for f in oracle_features]).velocity

    assert ours.dtype == torch.float32
    for mine, theirs in zip([*features, ours], [*oracle_features, oracle], strict=True):
        assert (mine - theirs).norm() < 0.05 * theirs.norm()
