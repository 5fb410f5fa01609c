"""Parity of whole pipelines: decoding, denoising, plans as released and as in the paper, the VAE (fixtures 05 to 10).

Each function yields the tensors to compare. The formulas are in the fixtures' JSON files. Plans run on the plain path
only. `app.parity` compares the service's planner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from wavserve.models.networks import flow
from wavserve.models.networks.plain import PlainIteration, Scene, plain_plan
from wavserve.models.parity.fixtures import FLOW_STEPS, Fixture, FixtureConfig, planner_config, read_draws, read_scene
from wavserve.models.parity.subject import Compared, Subject, unpadded

_VIDEO_STEPS = (1, 5, 10)
"""Euler steps after which fixture 06 recorded the latents."""


def decode(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 05: one action chunk decoded from given noise."""
    scene, value_noise, action_noise = read_scene(fixture), fixture["value_noise"], fixture["action_noise"]
    future = fixture["video_noise"][None, :, :, subject.config.latent.num_memory_frames :]
    features = subject.plain.imagine(scene, future)
    value_features = subject.plain.value_features(features, value_noise)
    steps: list[Tensor] = []
    action = subject.plain.integrate_action(scene, (features, value_features), action_noise, FLOW_STEPS, steps.append)
    yield "plain", "action", action, fixture["action"]
    yield "plain", "action_after_step", torch.cat(steps), fixture["action_after_step"]
    yield "plain", "value", _frozen_value(subject, value_noise, value_features[-1]), fixture["value"]
    yield from _features("plain", fixture, features, value_features, subject.config)
    fast_features, fast_value_features, fast_action = _fast_decode(subject, fixture, scene, future)
    yield "fast", "action", fast_action, fixture["action"]
    yield from _features("fast", fixture, fast_features, fast_value_features, subject.config)


def _fast_decode(
    subject: Subject, fixture: Fixture, scene: Scene, future: Tensor
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Video features, value features and actions of fixture 05, on the fast paths."""
    features: list[Tensor] = []
    text = subject.video.text_kv(unpadded(scene.text, scene.text_mask))
    subject.video.imagine(scene.memory[None], future[None], [text], 1, lambda layer, x: features.append(x.clone()))
    value_features = subject.value.features(fixture["value_noise"], subject.value.cross_kv(features.__getitem__))
    kv = subject.action.cross_kv(features.__getitem__), subject.action.value_kv(value_features.__getitem__)
    return (
        features,
        value_features,
        subject.action.integrate(fixture["action_noise"], scene.history[None], *kv, FLOW_STEPS),
    )


def _frozen_value(subject: Subject, noise: Tensor, last: Tensor) -> Tensor:
    """The value that the released code returns with an action. It is integrated on the features of pure noise."""

    def velocity(x: Tensor, sigma: float) -> Tensor:
        timestep = torch.full(x.shape[:2], sigma * flow.TIMESTEPS)
        return subject.models.value.head(last, subject.models.value.time_embed(timestep)[1])

    return flow.integrate(velocity, noise, FLOW_STEPS)


def _features(
    path: str, fixture: Fixture, features: Sequence[Tensor], value_features: Sequence[Tensor], config: FixtureConfig
) -> Iterator[Compared]:
    """The features of those layers that fixture 05 recorded."""
    for layer, (video, value) in enumerate(zip(features, value_features, strict=True)):
        if f"buffer.{layer}" in fixture.tensors:
            ours = rearrange(video, "1 (v l) c -> v l c", v=config.num_views)
            yield path, f"buffer.{layer}", ours, fixture[f"buffer.{layer}"]
            yield path, f"value_buffer.{layer}", value, fixture[f"value_buffer.{layer}"]


def denoise(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 06: future latents fully denoised from given noise (paper figure 9)."""
    scene = read_scene(fixture)
    noise = fixture["video_noise"][:, :, subject.config.latent.num_memory_frames :]
    steps: list[Tensor] = []
    final = subject.plain.denoise(scene, noise[None], FLOW_STEPS, steps.append)[0]
    recorded_steps = torch.cat([steps[step - 1] for step in _VIDEO_STEPS])
    yield "plain", "video_after_step", recorded_steps, fixture["video_after_step"]
    text = subject.video.text_kv(unpadded(scene.text, scene.text_mask))
    fast = subject.video.denoise(scene.memory[None], noise[None, None], [text], FLOW_STEPS)[0, 0]
    yield "fast", "video_after_step.last", fast, fixture["video_after_step"][-1]
    std, mean = (rearrange(fixture[name], "c -> c 1 1 1") for name in ("latents_std", "latents_mean"))
    yield "plain", "denormalised", final * std + mean, fixture["denormalised"]
    yield "fast", "denormalised", fast * std + mean, fixture["denormalised"]


def plan_published(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 08: one plan as the released code makes it."""
    inputs = subject.other("07_plan_inputs")
    config = planner_config(fixture, "published")
    action, iterations = plain_plan(subject.plain, read_scene(inputs), read_draws(inputs, subject.config), config)
    yield "plain", "action", action[None], fixture["action"]
    for k, iteration in enumerate(iterations):
        yield "plain", f"snr_as_attributed.{k}", iteration.snr, fixture[f"snr_as_attributed.{k}"]
        yield "plain", f"score_as_attributed.{k}", iteration.snr.amax(1), fixture[f"score_as_attributed.{k}"]
        yield from _iteration(subject, fixture, k, iteration)


def plan_paper(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 09: the same plan with each video sample scored by its own value samples (paper section 4.3)."""
    inputs = subject.other("07_plan_inputs")
    scene, draws = read_scene(inputs), read_draws(inputs, subject.config)
    action, iterations = plain_plan(subject.plain, scene, draws, planner_config(fixture, "paper"))
    yield "plain", "action", action[None], fixture["action"]
    for k, iteration in enumerate(iterations):
        yield "plain", f"snr.{k}", iteration.snr, fixture[f"snr.{k}"]
        yield "plain", f"score.{k}", iteration.snr.amax(1), fixture[f"score.{k}"]
        yield from _iteration(subject, fixture, k, iteration)
    if "per_view.action" in fixture.tensors:
        yield from _per_view(
            subject, fixture, plain_plan(subject.plain, scene, draws, planner_config(fixture, "paper", True))
        )


def _per_view(subject: Subject, fixture: Fixture, plan: tuple[Tensor, list[PlainIteration]]) -> Iterator[Compared]:
    action, iterations = plan
    yield "plain", "per_view.action", action[None], fixture["per_view.action"]
    for k, iteration in enumerate(iterations):
        for name in ("snr", "video_elites", "value_elites"):
            yield "plain", f"per_view.{name}.{k}", getattr(iteration, name), fixture[f"per_view.{name}.{k}"]
    first = subject.config.latent.num_memory_frames
    for part, name in enumerate(("mean", "std")):
        video = fixture[f"per_view.video_{name}"][:, :, first:]
        yield "plain", f"per_view.video_{name}", iterations[-1].video[part], video
        yield "plain", f"per_view.value_{name}", iterations[-1].value[part], fixture[f"per_view.value_{name}"]


def _iteration(subject: Subject, fixture: Fixture, k: int, iteration: PlainIteration) -> Iterator[Compared]:
    first = subject.config.latent.num_memory_frames
    yield "plain", f"values_last.{k}", iteration.values, fixture[f"values_last.{k}"]
    yield "plain", f"video_elites.{k}", iteration.video_elites, fixture[f"video_elites.{k}"]
    yield "plain", f"value_elites.{k}", iteration.value_elites, fixture[f"value_elites.{k}"]
    for part, name in enumerate(("mean", "std")):
        yield "plain", f"video_{name}.{k}", iteration.video[part][0], fixture[f"video_{name}.{k}"][:, first:]
        yield "plain", f"value_{name}.{k}", iteration.value[part], fixture[f"value_{name}.{k}"]


def vae(subject: Subject, fixture: Fixture) -> Iterator[Compared]:
    """Fixture 10: the VAE's posterior, normalised latents and decoded frames."""
    from diffusers import AutoencoderKLLTXVideo  # slow to import and needed only here

    from wavserve.models.networks.encoder import VideoCoder

    model: Any = AutoencoderKLLTXVideo(**fixture.meta["vae_kwargs"])  # type: ignore[no-untyped-call]
    model.load_state_dict(dict(subject.other("10_vae_weights").tensors), strict=True)
    coder = VideoCoder(model)
    for name in ("frames", "clip"):
        posterior = model.encode(fixture[name]).latent_dist
        yield "plain", f"{name}_mode", posterior.mode(), fixture[f"{name}_mode"]
        yield "plain", f"{name}_latents", coder.encode(fixture[name]), fixture[f"{name}_latents"]
        if f"{name}_logvar" in fixture.tensors:
            yield "plain", f"{name}_logvar", posterior.logvar, fixture[f"{name}_logvar"]
    yield "plain", "clip_decoded", coder.decode(fixture["clip_latents"]), fixture["clip_decoded"]
