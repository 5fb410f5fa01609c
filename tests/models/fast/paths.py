"""One plan through the fast paths, without planner and arena, for comparison with the plain plan."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from wavserve.models.fast.expert import FastAction, FastValue
from wavserve.models.fast.video import FastVideo
from wavserve.models.flops import Workload
from wavserve.models.networks.plain import Draws, Scene, refit, refit_video, snr, standard_normal
from wavserve.models.weights.weights import Models


def plan_fast(work: Workload, models: Models, scene: Scene, draws: Draws) -> tuple[Tensor, list[Tensor]]:
    """Actions `[T, action channels]` and the SNR `[N, M]` of every iteration."""
    video_model = FastVideo(models.video, work.config, work.latent, work.num_views)
    value_model = FastValue(models.value, work.config, work.chunk)
    action_model = FastAction(models.action, work.config, work.chunk)
    text = video_model.text_kv(scene.text[scene.text_mask.bool()])
    config = work.planner

    def imagine(futures: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        sink = lambda layer, x: features.append(x.clone())  # noqa: E731
        video_model.imagine(scene.memory[None], futures[None], [text], config.num_video_steps, sink)
        return features

    snrs = []
    video, value = standard_normal(draws.final_video[:1]), standard_normal(draws.final_value)
    for k in range(config.num_iterations):
        futures, noises = draws.video[k] * video[1] + video[0], draws.value[k] * value[1] + value[0]
        kv = value_model.cross_kv(imagine(futures).__getitem__)
        grouped = rearrange(noises, "(n m) t c -> n m t c", n=len(futures))
        by_sample = snr(value_model.integrate(grouped, kv, config.num_flow_steps)[..., -1])
        snrs.append(by_sample)
        video = refit_video(video, futures[by_sample.amax(1).topk(config.num_video_elites).indices], config)
        value = refit(value, noises[by_sample.flatten().topk(config.num_value_elites).indices], config)
    features = imagine((draws.final_video * video[1] + video[0])[None])
    noise = (draws.final_value * value[1] + value[0])[None]
    value_features = value_model.features(noise, value_model.cross_kv(features.__getitem__))
    kvs = action_model.cross_kv(features.__getitem__), action_model.value_kv(value_features.__getitem__)
    actions = action_model.integrate(draws.action[None], scene.history[None], *kvs, config.num_flow_steps)
    return torch.squeeze(actions, 0), snrs
