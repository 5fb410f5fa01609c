"""The oracle: whole pipelines and one plan (paper section 4.3, Algorithm 1), computed as the authors' code does.

Nothing is cached or shared. Features are tiled per value sample and projected to keys and values in every flow step.
Timesteps are embedded per token. Text is padded and masked. The service never runs this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from wavserve.core.spec import LatentSpec, ModelConfig, PlannerConfig
from wavserve.models.networks import flow
from wavserve.models.networks.guidance import Guidance, Prefix, guided
from wavserve.models.networks.layers import Context
from wavserve.models.networks.maths import pack, unpack, video_rotary
from wavserve.models.networks.video import VideoOutput
from wavserve.models.weights.weights import Models

MASKED = -10000.0
"""Added to the attention logits of padding tokens."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The conditions of a plan."""

    memory: Tensor
    """memory latents `[V, C, Fmem, H, W]`"""
    text: Tensor
    """`[P, Ctext]`"""
    text_mask: Tensor
    """`[P]`; 1: a token, 0: padding"""
    history: Tensor
    """the state, `[action channels]`"""


@dataclass(frozen=True, slots=True)
class Draws:
    """Every standard-normal draw of one plan. The last three are for the final decode."""

    video: Tensor
    """`[K, N, V, C, Fgen, H, W]`"""
    value: Tensor
    """`[K, N*M, T, C]`"""
    final_video: Tensor
    """`[V, C, Fgen, H, W]`"""
    final_value: Tensor
    """`[T, C]`"""
    action: Tensor
    """`[T, action channels]`"""


@dataclass(frozen=True, slots=True)
class PlainIteration:
    """Results of one planning iteration. Elites are indices, best first. Gaussians are pairs (mean, std)."""

    values: Tensor
    """last channel of the value tokens, `[N*M, T]`"""
    snr: Tensor
    """`[N, M]`"""
    video_elites: Tensor
    value_elites: Tensor
    video: tuple[Tensor, Tensor]
    """the refitted video Gaussian, `[V or 1, C, Fgen, H, W]`"""
    value: tuple[Tensor, Tensor]
    """the refitted value Gaussian, `[T, C]`"""


@dataclass(frozen=True, slots=True)
class Plain:
    """The three models at one latent shape. Every method takes one scene."""

    models: Models
    config: ModelConfig
    latent: LatentSpec

    @torch.inference_mode()
    def video(self, scene: Scene, future: Tensor, sigma: float) -> VideoOutput:
        """One video forward of the scene's memory frames followed by `future [N, V, C, Fgen, H, W]` at `sigma`."""
        memory = scene.memory.expand(len(future), *scene.memory.shape)
        tokens = pack(torch.cat([memory, future], dim=3))
        timestep = torch.full(tokens.shape[:3], sigma * flow.TIMESTEPS, device=tokens.device)
        timestep[:, :, : self.latent.num_memory_frames * self.latent.tokens_per_frame] = 0
        mask = ((1 - scene.text_mask.to(future.dtype)) * MASKED).expand(len(future), -1)
        text = Context(scene.text.expand(len(future), -1, -1), mask)
        rotary = video_rotary(self.config, self.latent).to(tokens)
        return self.models.video(tokens.flatten(1, 2), timestep.flatten(1, 2), text, rotary)  # type: ignore[no-any-return]

    def velocity(self, scene: Scene, future: Tensor, sigma: float) -> Tensor:
        """Velocity of the generated latents `[N, V, C, Fgen, H, W]`."""
        tokens = rearrange(self.video(scene, future, sigma).velocity, "n (v l) c -> n v l c", v=future.shape[1])
        return unpack(tokens[:, :, self.latent.num_memory_frames * self.latent.tokens_per_frame :], self.latent)

    def denoise(
        self, scene: Scene, noise: Tensor, num_steps: int, on_step: Callable[[Tensor], None] | None = None
    ) -> Tensor:
        """Future latents `[N, V, C, Fgen, H, W]`, fully denoised from `noise` (paper figure 9). Memory stays fixed."""
        return flow.integrate(lambda x, sigma: self.velocity(scene, x, sigma), noise, num_steps, on_step)

    def imagine(self, scene: Scene, noise: Tensor, num_steps: int = 1) -> Sequence[Tensor]:
        """Features after each block `[N, V*L, D]`, from the last of `num_steps` denoising forwards.

        The released code takes one step, which is a forward on pure noise.
        """
        x, sigma = flow.integrate_to_last_step(lambda x, sigma: self.velocity(scene, x, sigma), noise, num_steps)
        return self.video(scene, x, sigma).features

    @torch.inference_mode()
    def integrate_value(self, features: Sequence[Tensor], noise: Tensor, num_steps: int) -> Tensor:
        """Value tokens `[R, T, C]`, integrated from `noise`. Row `r` reads row `r` of the video features."""

        def velocity(x: Tensor, sigma: float) -> Tensor:
            timestep = torch.full(x.shape[:2], sigma * flow.TIMESTEPS, device=x.device)
            out: Tensor = self.models.value(x, timestep, features).velocity
            return out

        return flow.integrate(velocity, noise, num_steps)

    @torch.inference_mode()
    def value_features(self, features: Sequence[Tensor], noise: Tensor) -> Sequence[Tensor]:
        """Value features after each block `[R, T, A]`, from one forward of `noise [R, T, C]` at timestep 1000."""
        timestep = torch.full(noise.shape[:2], float(flow.TIMESTEPS), device=noise.device)
        value_features: Sequence[Tensor] = self.models.value(noise, timestep, features).features
        return value_features

    @torch.inference_mode()
    def integrate_action(
        self,
        scene: Scene,
        features: tuple[Sequence[Tensor], Sequence[Tensor]],
        noise: Tensor,
        num_steps: int,
        on_step: Callable[[Tensor], None] | None = None,
        continued: Guidance | Prefix | None = None,
    ) -> Tensor:
        """Actions `[R, T, C]`, integrated from `noise` on fixed `(video features, value features)`.

        `continued`: the left-over that guides them, or the clean prefix that they continue.
        """
        history = scene.history.expand(len(noise), 1, -1)

        def velocity(x: Tensor, sigma: float) -> Tensor:
            timestep = torch.full(x.shape[:2], sigma * flow.TIMESTEPS, device=x.device)
            if isinstance(continued, Prefix):
                x, timestep = continued.put_into(x), timestep.masked_fill(continued.is_frozen, 0.0)
            out: Tensor = self.models.action(x, timestep, *features, history=history).velocity
            return out

        if isinstance(continued, Guidance):
            return flow.integrate(guided(velocity, continued), noise, num_steps, on_step)
        actions = flow.integrate(velocity, noise, num_steps, on_step)
        return actions if continued is None else continued.put_into(actions)


def snr(values: Tensor) -> Tensor:
    """Signal-to-noise ratio `[...]` of values `[..., T]`: mean / (unbiased std + 1e-6) (paper section 4.3)."""
    return values.mean(-1) / (values.std(-1) + 1e-6)


def refit(gaussian: tuple[Tensor, Tensor], elites: Tensor, config: PlannerConfig) -> tuple[Tensor, Tensor]:
    """The Gaussian `(mean, std)` moved towards its elites `[E, ...]` (paper Algorithm 1; unbiased std)."""
    mean, std = gaussian
    a, d = config.smoothing, config.decay
    return a * mean + (1 - a) * elites.mean(0), a * std + (1 - a) * d * elites.std(0)


def refit_video(gaussian: tuple[Tensor, Tensor], elites: Tensor, config: PlannerConfig) -> tuple[Tensor, Tensor]:
    """`refit` of the video Gaussian on `elites [E, V, C, Fgen, H, W]`: one Gaussian per view, or one for all views."""
    if not config.per_view_noise:
        elites = rearrange(elites, "e v ... -> (e v) 1 ...")
    return refit(gaussian, elites, config)


def standard_normal(noise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean 0 and std 1 in the shape of `noise`. Planning starts from this Gaussian."""
    return torch.zeros_like(noise), torch.ones_like(noise)


def plain_plan(plain: Plain, scene: Scene, draws: Draws, config: PlannerConfig) -> tuple[Tensor, list[PlainIteration]]:
    """One plan on explicit noise: actions `[T, action channels]` and every iteration's results (paper Algorithm 1).

    Mode `published` reproduces the released code: value row `r` reads video sample `r % N`, but its score is credited
    to video sample `r // M`.
    """
    video = standard_normal(draws.final_video if config.per_view_noise else draws.final_video[:1])
    value = standard_normal(draws.final_value)
    iterations = []
    for k in range(config.num_iterations):
        futures, noises = draws.video[k] * video[1] + video[0], draws.value[k] * value[1] + value[0]
        values = _score(plain, scene, futures, noises, config)
        by_sample = rearrange(snr(values), "(n m) -> n m", m=config.num_value_samples)
        video_elites = by_sample.amax(1).argsort(descending=True)[: config.num_video_elites]
        value_elites = by_sample.flatten().argsort(descending=True)[: config.num_value_elites]
        video = refit_video(video, futures[video_elites], config)
        value = refit(value, noises[value_elites], config)
        iterations.append(PlainIteration(values, by_sample, video_elites, value_elites, video, value))
    features = plain.imagine(scene, (draws.final_video * video[1] + video[0]).unsqueeze(0), config.num_video_steps)
    value_features = plain.value_features(features, (draws.final_value * value[1] + value[0]).unsqueeze(0))
    actions = plain.integrate_action(
        scene, (features, value_features), draws.action.unsqueeze(0), config.num_flow_steps
    )
    return actions[0], iterations


def _score(plain: Plain, scene: Scene, futures: Tensor, noises: Tensor, config: PlannerConfig) -> Tensor:
    """Last channel of the integrated value tokens `[N*M, T]`."""
    layout = "n l d -> (m n) l d" if config.mode == "published" else "n l d -> (n m) l d"
    features = plain.imagine(scene, futures, config.num_video_steps)
    tiled = [repeat(feature, layout, m=config.num_value_samples) for feature in features]
    del features
    return plain.integrate_value(tiled, noises, config.num_flow_steps)[..., -1]
