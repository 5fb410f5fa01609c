"""The third stage: the value expert learns states, rewards and returns, on the features of a frozen video transformer.

Its last channel is the return. Planning reads that channel alone, so the data need failures too: a value model that has
seen successes only cannot tell futures apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wavserve.models.networks import flow
from wavserve.training.draws import Draws
from wavserve.training.network import Features, Network, disturbed, noised
from wavserve.training.recipe import Recipe
from wavserve.training.samples import Batch, Pool
from wavserve.training.video_loss import precision


class ValueObjective:
    """See `trainer.Objective`."""

    def __init__(self, network: Network, pools: tuple[Pool, Pool], fixed: Mapping[str, Tensor], recipe: Recipe) -> None:
        """`pools`: of the samples to learn from, and of those that are held out."""
        self._network, (self._pool, self._held_out), self._recipe = network, pools, recipe
        self._fixed = fixed
        network.models.video.requires_grad_(False)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"value": self._network.models.value}

    def fixed(self) -> Mapping[str, Tensor]:
        return self._fixed

    def losses(self, step: int) -> dict[str, Tensor]:
        recipe, optimisation = self._recipe, self._recipe.value.optimisation
        batch = self._pool.draw((recipe.seed, 5, step), optimisation.batch_size)
        draws = Draws(recipe.seed, "value", step, self._network.device)
        batch = disturbed(batch, draws, recipe.video.memory_noise, recipe.video.image_dropout)
        with precision(self._network, optimisation.precision):
            with torch.no_grad():
                noise = draws.normal(*batch.samples.future.shape)
                features = self._network.on_true_future(batch, noise, recipe.video_steps, draws).features
            sigma = draws.uniform(batch.size, recipe.value.num_draws)
            loss, _ = value_loss(self._network, batch, features, sigma, draws)
        return {"loss": loss}

    def evaluate(self) -> dict[str, float]:
        """See `value_figures`."""
        return value_figures(self._network, self._held_out, self._recipe)


def value_loss(
    network: Network, batch: Batch, features: Features, sigma: Tensor, draws: Draws
) -> tuple[Tensor, list[Tensor]]:
    """Mean squared error of the velocity at `sigma [B, R]`, and the value features of the first draw `[B, T, A]`."""
    values = batch.samples.values.unsqueeze(1)
    noise = draws.normal(*sigma.shape, *values.shape[2:])
    velocity, own = network.value(noised(values, noise, sigma), sigma, features)
    return (velocity.float() - (noise - values)).square().mean(), [each[:, 0] for each in own]


def value_figures(network: Network, pool: Pool, recipe: Recipe) -> dict[str, float]:
    """On held-out samples: the correlation of the predicted and the achieved return, and the error of the former.

    Returns that are all equal have no correlation.
    """
    batch = pool.draw((recipe.seed, 6), 4 * recipe.value.optimisation.batch_size)
    draws = Draws(recipe.seed, "value held out", 0, network.device)
    planner, video_noise = network.spec.planner, draws.normal(*batch.samples.future.shape)
    features = network.imagined(batch, video_noise, planner.num_video_steps).features
    achieved = batch.samples.values[..., -1]

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return network.value(x, torch.full(x.shape[:2], sigma, device=x.device), features)[0]

    noise = draws.normal(batch.size, 1, *batch.samples.values.shape[1:])
    predicted = flow.integrate(velocity, noise, planner.num_flow_steps)[:, 0, :, -1]
    both = torch.stack([predicted.mean(1), achieved.mean(1)]).cpu()
    error = {"return error": (both[0] - both[1]).abs().mean().item()}
    if (both == both[:, :1]).all(dim=1).any():
        return error
    return {"return correlation": torch.corrcoef(both)[0, 1].item(), **error}
