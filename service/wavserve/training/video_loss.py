"""The second stage: the video transformer learns flow matching on the latents of what comes next."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wavserve.training.draws import Draws
from wavserve.training.network import Network, disturbed, noised
from wavserve.training.recipe import Recipe
from wavserve.training.samples import Batch, Pool


class VideoObjective:
    """See `trainer.Objective`."""

    def __init__(self, network: Network, pools: tuple[Pool, Pool], fixed: Mapping[str, Tensor], recipe: Recipe) -> None:
        """`pools`: of the samples to learn from, and of those that are held out."""
        self._network, (self._pool, self._held_out), self._recipe = network, pools, recipe
        self._fixed = fixed

    def modules(self) -> Mapping[str, nn.Module]:
        return {"video": self._network.models.video}

    def fixed(self) -> Mapping[str, Tensor]:
        return self._fixed

    def losses(self, step: int) -> dict[str, Tensor]:
        recipe, optimisation = self._recipe.video, self._recipe.video.optimisation
        batch = self._pool.draw((self._recipe.seed, 3, step), optimisation.batch_size)
        draws = Draws(self._recipe.seed, "video", step, self._network.device)
        batch = disturbed(batch, draws, recipe.memory_noise, recipe.image_dropout)
        sigma = draws.uniform(batch.size)
        sigma = torch.where(draws.uniform(batch.size) < recipe.noisiest_share, 1.0, sigma)
        with precision(self._network, optimisation.precision):
            return {"loss": video_loss(self._network, batch, draws, sigma)}

    def evaluate(self) -> dict[str, float]:
        """The loss at pure noise and in the middle."""
        batch = self._held_out.draw((self._recipe.seed, 4), 4 * self._recipe.video.optimisation.batch_size)
        draws = Draws(self._recipe.seed, "video held out", 0, self._network.device)
        levels = {"pure noise": 1.0, "half noise": 0.5}
        return {
            name: video_loss(
                self._network, batch, draws, torch.full((batch.size,), level, device=self._network.device)
            ).item()
            for name, level in levels.items()
        }


def video_loss(network: Network, batch: Batch, draws: Draws, sigma: Tensor) -> Tensor:
    """Mean squared error of the future's velocity at noise levels `sigma [B]`."""
    future = batch.samples.future
    noise = draws.normal(*future.shape)
    out = network.video(batch, noised(future, noise, sigma), sigma)
    return future_error(out.velocity, noise, future)


def future_error(velocity: Tensor, noise: Tensor, future: Tensor) -> Tensor:
    """The same from a forward's velocity `[B, V, F, L, C]`, whose last frame is the future."""
    return (velocity[:, :, -1].float() - (noise - future)).square().mean()


def precision(network: Network, name: str) -> torch.autocast:
    """The number type of a stage's matrix products."""
    return torch.autocast(network.device.type, torch.bfloat16, enabled=name == "bfloat16")
