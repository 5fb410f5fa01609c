"""The three transformers of a policy in training: the forwards that the losses share.

The condition of serving is the condition of training: the experts read video features of one forward on pure noise (or
of the last of several steps), and the action expert reads value features of one forward on pure noise. Knows neither
the losses nor the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wavserve.core.spec import PolicySpec
from wavserve.models.networks.flow import TIMESTEPS, integrate_to_last_step
from wavserve.models.networks.maths import Rotary, video_rotary
from wavserve.models.networks.video import VideoOutput
from wavserve.models.weights.weights import Models
from wavserve.training.draws import Draws
from wavserve.training.forward import expert_forward, video_forward
from wavserve.training.samples import Batch

Features = Sequence[Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A policy's transformers on one device."""

    spec: PolicySpec
    models: Models
    rotary: Rotary

    @classmethod
    def of(cls, spec: PolicySpec, models: Models, device: str) -> Network:
        models = models.to(device)
        return cls(spec, models, video_rotary(spec.model, spec.latent).to(models.video.view_embed))

    @property
    def device(self) -> torch.device:
        return self.models.video.view_embed.device

    def video(self, batch: Batch, future: Tensor, sigma: Tensor) -> VideoOutput:
        """One forward of the memory and `future [B, V, L, C]` at noise levels `sigma [B or 1]`."""
        frames = torch.stack([batch.samples.memory, future], dim=2)
        timestep = torch.stack([torch.zeros_like(sigma), sigma * TIMESTEPS], dim=1)
        return video_forward(self.models.video, frames, timestep, batch.text, self.rotary)

    def imagined(self, batch: Batch, noise: Tensor, num_steps: int = 1) -> VideoOutput:
        """The forward whose features serving reads: the last of `num_steps` from pure `noise [B, V, L, C]`."""

        def velocity(future: Tensor, sigma: float) -> Tensor:
            return self.video(batch, future, noise.new_tensor([sigma])).velocity[:, :, -1]

        future, sigma = integrate_to_last_step(velocity, noise, num_steps)
        return self.video(batch, future, noise.new_tensor([sigma]))

    def on_true_future(self, batch: Batch, noise: Tensor, video_steps: Sequence[int], draws: Draws) -> VideoOutput:
        """What training has for `imagined`: the last step on the true future. `num_steps` is drawn for each sample.

        The last of S steps is at the noise level 1 / S. At S = 1 both are on pure noise, and equal.
        """
        if tuple(video_steps) == (1,):
            return self.imagined(batch, noise)
        steps = torch.tensor(video_steps, device=noise.device)[draws.below(len(video_steps), batch.size)]
        return self.video(batch, noised(batch.samples.future, noise, 1 / steps), 1 / steps)

    def value(self, samples: Tensor, sigma: Tensor, features: Features) -> tuple[Tensor, list[Tensor]]:
        """Velocity of `samples [B, R, T, C]` at `sigma [B, R]`, and its features `[B, R, T, A]`."""
        out = expert_forward(self.models.value, samples, sigma * TIMESTEPS, [features])
        return out.velocity, list(out.features)

    def action(
        self,
        samples: Tensor,
        sigma: Tensor,
        contexts: Sequence[Features],
        state: Tensor,
        is_clean: Tensor | None = None,
    ) -> Tensor:
        """Velocity of `samples [B, R, T, C]` at `sigma [B, R]`, after `state [B, S]`."""
        history = torch.cat([state.new_zeros(len(state), samples.shape[-1] - state.shape[1]), state], dim=1)
        out = expert_forward(self.models.action, samples, sigma * TIMESTEPS, contexts, history, is_clean)
        return out.velocity


def noised(data: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """`(1 - s) data + s noise`; `sigma` has the leading dimensions."""
    s = sigma.reshape(*sigma.shape, *(1,) * (noise.dim() - sigma.dim()))
    return (1 - s) * data + s * noise


def disturbed(batch: Batch, draws: Draws, memory_noise: float, dropout: float) -> Batch:
    """The batch with noise on the memory's latents, and with no pictures at all in some rows."""
    memory = batch.samples.memory
    memory = memory + memory_noise * draws.normal(*memory.shape)
    kept = (draws.uniform(len(memory)) >= dropout).to(memory)[:, None, None, None]
    return replace(batch, samples=replace(batch.samples, memory=memory * kept))
