"""The last stage: all three transformers learn actions together, and the losses of video and value stay on.

Some draws have a clean prefix, as a plan has that continues a chunk which the robot executes meanwhile (real-time
chunking, arXiv 2512.05964).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavserve.models.networks import flow
from wavserve.models.networks.guidance import Prefix
from wavserve.training.draws import Draws
from wavserve.training.held_out import NUM_COMPARED
from wavserve.training.network import Features, Network, disturbed, noised
from wavserve.training.recipe import Recipe
from wavserve.training.samples import Batch, Pool
from wavserve.training.value_loss import value_figures, value_loss
from wavserve.training.video_loss import future_error, precision, video_loss


class ActionObjective:
    """See `trainer.Objective`."""

    def __init__(self, network: Network, pools: tuple[Pool, Pool], fixed: Mapping[str, Tensor], recipe: Recipe) -> None:
        """`pools`: of the samples to learn from, and of those that are held out."""
        self._network, (self._pool, self._held_out), self._recipe = network, pools, recipe
        self._fixed = fixed
        self._num_actions = network.spec.action.vector.dim

    def modules(self) -> Mapping[str, nn.Module]:
        models = self._network.models
        return {"video": models.video, "value": models.value, "action": models.action}

    def fixed(self) -> Mapping[str, Tensor]:
        return self._fixed

    def losses(self, step: int) -> dict[str, Tensor]:
        recipe, optimisation = self._recipe, self._recipe.action.optimisation
        batch = self._pool.draw((recipe.seed, 7, step), optimisation.batch_size)
        draws = Draws(recipe.seed, "action", step, self._network.device)
        batch = disturbed(batch, draws, recipe.video.memory_noise, recipe.video.image_dropout)
        with precision(self._network, optimisation.precision):
            terms = self._terms(batch, draws)
            if size := round(batch.size * recipe.action.any_noise_share):
                other = self._pool.draw((recipe.seed, 8, step), size)
                any_noise = video_loss(self._network, other, draws, draws.uniform(other.size))
                terms["video, any noise"] = any_noise
                terms["loss"] = terms["loss"] + recipe.action.video_weight * recipe.action.any_noise_share * any_noise
        return terms

    def _terms(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        recipe = self._recipe.action
        noise = draws.normal(*batch.samples.future.shape)
        video = self._network.on_true_future(batch, noise, self._recipe.video_steps, draws)
        sigma = draws.uniform(batch.size, self._recipe.value.num_draws)
        sigma[:, 0] = 1.0  # the draw whose features the action expert reads
        value, value_features = value_loss(self._network, batch, video.features, sigma, draws)
        future = future_error(video.velocity, noise, batch.samples.future)
        action, states = self._action_errors(batch, [video.features, value_features], draws)
        loss = action + recipe.state_weight * states + recipe.video_weight * future + recipe.value_weight * value
        return {"loss": loss, "action": action, "states": states, "video": future, "value": value}

    def _action_errors(self, batch: Batch, contexts: list[Features], draws: Draws) -> tuple[Tensor, Tensor]:
        """Mean squared errors of the velocity: of the actions, and of the predicted states."""
        recipe, samples = self._recipe.action, batch.samples
        actions = samples.actions.unsqueeze(1)
        sigma = _levels(batch.size, recipe.num_draws, recipe.noise_bias, draws)
        noise = draws.normal(*sigma.shape, *actions.shape[2:])
        prefix = self._prefix(batch, draws)
        is_clean = prefix.is_frozen.view(*sigma.shape, -1)
        x = prefix.put_into(noised(actions, noise, sigma).flatten(0, 1)).view(noise.shape)
        state = samples.state + recipe.state_noise * draws.normal(*samples.state.shape)
        velocity = self._network.action(x, sigma, contexts, state, is_clean)
        error = (velocity.float() - (noise - actions)).square()
        counted = (samples.is_label.unsqueeze(1) & ~is_clean).unsqueeze(-1).to(error)
        split = [self._num_actions, error.shape[-1] - self._num_actions]
        num = counted.sum().clamp(min=1)
        action, states = ((part * counted).sum() / (num * part.shape[-1]) for part in torch.split(error, split, dim=-1))
        return action, states

    def _prefix(self, batch: Batch, draws: Draws) -> Prefix:
        """The clean prefix of each draw `[(B R)]`: of 1 to `max_delay` steps in some, of none in the others."""
        recipe = self._recipe.action
        num = batch.size * recipe.num_draws
        delay = 1 + draws.below(max(recipe.max_delay, 1), num)
        share = recipe.prefix_share if recipe.max_delay else 0.0
        chosen = draws.uniform(num) < share
        clean = batch.samples.actions[..., : self._num_actions].repeat_interleave(recipe.num_draws, dim=0)
        return Prefix(clean, torch.where(chosen, delay, 0))

    def evaluate(self) -> dict[str, float]:
        """The mean absolute error of normalised actions that are executed, of the gripper alone, and of the value. The
        errors are left out where no action is to be imitated."""
        recipe, network = self._recipe, self._network
        batch = self._held_out.draw((recipe.seed, 9), 2 * recipe.action.optimisation.batch_size)
        draws = Draws(recipe.seed, "action held out", 0, network.device)
        actions = plan(network, batch, draws)
        error = (actions - batch.samples.actions)[:, :NUM_COMPARED, : self._num_actions].abs()
        counted = batch.samples.is_label[:, :NUM_COMPARED, None].to(error)
        value = value_figures(network, self._held_out, recipe)
        if not counted.any():
            return value
        mean = (error * counted).sum((0, 1)) / counted.sum()
        return {"action": mean[:-1].mean().item(), "gripper": mean[-1].item(), **value}


@dataclass(frozen=True, slots=True, eq=False)
class PlanNoise:
    """Standard normals of B plans."""

    video: Tensor
    """`[B, V, L, C]`"""
    value: Tensor
    """`[B, 1, T, S + 2]`"""
    action: Tensor
    """`[B, 1, T, A + S]`"""


def plan(network: Network, batch: Batch, draws: Draws) -> Tensor:
    """Actions `[B, T, A + S]` as serving decodes them without planning, from drawn noise."""
    samples = batch.samples
    video = draws.normal(*samples.future.shape)
    value = draws.normal(batch.size, 1, *samples.values.shape[1:])
    action = draws.normal(batch.size, 1, *samples.actions.shape[1:])
    return planned(network, batch, PlanNoise(video, value, action), network.spec.planner.num_video_steps)


def planned(network: Network, batch: Batch, noise: PlanNoise, num_video_steps: int = 1) -> Tensor:
    """Actions `[B, T, A + S]` as serving decodes them without planning. Reads what a plan sees of the samples."""
    video = network.imagined(batch, noise.video, num_video_steps).features
    _, own = network.value(noise.value, torch.ones(noise.value.shape[:2], device=noise.value.device), video)
    contexts = [video, [each[:, 0] for each in own]]

    def velocity(x: Tensor, sigma: float) -> Tensor:
        level = torch.full(x.shape[:2], sigma, device=x.device)
        return network.action(x, level, contexts, batch.samples.state)

    return flow.integrate(velocity, noise.action, network.spec.planner.num_flow_steps)[:, 0]


def _levels(num_rows: int, num_draws: int, bias: float, draws: Draws) -> Tensor:
    """Noise levels `[B, R]`: one in each of R equal parts of 0..1, and more at high noise for a bias above 1."""
    even = (torch.arange(num_draws, device=draws.device) + draws.uniform(num_rows, num_draws)) / num_draws
    return 1 - (1 - even) ** bias
