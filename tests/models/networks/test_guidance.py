"""Guidance against the paper's formula with a whole Jacobian, and its effect on flows whose data are known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from wavserve.core.rtc import prefix_weights
from wavserve.core.spec import ExpertConfig, LatentSpec, ModelConfig, VideoConfig
from wavserve.models.networks import flow
from wavserve.models.networks.flow import Velocity
from wavserve.models.networks.guidance import Guidance, Prefix, guided
from wavserve.models.networks.plain import Plain, Scene
from wavserve.models.weights.weights import random_models

NUM_STEPS, DELAY, HORIZON, MAX_WEIGHT = 4, 3, 6, 5.0
CHUNK, ACTION_DIM = 8, 3
CONFIG = ModelConfig(
    VideoConfig(4, 4, num_layers=3, num_heads=2, head_dim=8, caption_channels=4),
    value=ExpertConfig(5, 5, num_heads=1, head_dim=12, rope_base=57),
    action=ExpertConfig(5, 5, num_heads=2, head_dim=6, rope_base=54),
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reference(velocity: Velocity, left_over: Tensor, weights: Tensor, noise: Tensor, num_steps: int) -> Tensor:
    """One guided sample `[T, C]`, as arXiv 2506.07339 writes it: time tau from 0 (noise) to 1, velocity `data - noise`,
    and the Jacobian of the estimated data as a matrix."""
    x, steps = noise.double(), [*np.linspace(0, 1 - 1 / num_steps, num_steps), 1.0]
    for tau, later in pairwise(steps):

        def towards_data(at: Tensor, tau: float = tau) -> Tensor:
            return -velocity(at.float()[None], 1 - tau)[0].double()

        def estimate(at: Tensor, tau: float = tau) -> Tensor:
            return at + (1 - tau) * towards_data(at)

        jacobian = torch.autograd.functional.jacobian(estimate, x).reshape(x.numel(), x.numel())
        error = torch.zeros_like(x)
        error[:, : left_over.shape[1]] = (left_over - estimate(x)[:, : left_over.shape[1]]) * weights[:, None]
        gradient = (error.flatten() @ jacobian).reshape(x.shape)
        r_squared = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
        weight = min(MAX_WEIGHT, math.inf if tau == 0 else (1 - tau) / (tau * r_squared))
        x = x + (later - tau) * (towards_data(x) + weight * gradient)
    return x


def test_guided_actions_follow_the_papers_formula() -> None:
    models = random_models(CONFIG, seed=3)
    plain = Plain(models, CONFIG, LatentSpec(1, 1, 2, 2))
    video = [normal(1, 8, CONFIG.video.width, seed=layer) for layer in range(3)]
    value = [normal(1, CHUNK, CONFIG.value.width, seed=layer + 10) for layer in range(3)]
    noise, state = normal(1, CHUNK, 5, seed=20), normal(5, seed=21)
    left_over = normal(1, CHUNK, ACTION_DIM, seed=22)
    weights = torch.from_numpy(prefix_weights("LINEAR", DELAY, HORIZON, CHUNK))[None]

    def velocity(x: Tensor, sigma: float) -> Tensor:
        timestep = torch.full(x.shape[:2], sigma * 1000)
        return models.action(x, timestep, video, value, history=state.expand(1, 1, -1)).velocity

    expected = reference(velocity, left_over[0], weights[0], noise[0], NUM_STEPS)
    scene = Scene(noise, noise, noise, state)  # only the state counts here
    guidance = Guidance(left_over, weights, torch.tensor([MAX_WEIGHT]))
    guided_actions = plain.integrate_action(scene, (video, value), noise, NUM_STEPS, continued=guidance)
    free_actions = plain.integrate_action(scene, (video, value), noise, NUM_STEPS)

    np.testing.assert_allclose(guided_actions[0].numpy(), expected.numpy(), atol=1e-5)
    assert (guided_actions - free_actions).abs().max() > 0.1


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [(1.0, 10.0), (0.9, 0.82 / 0.09), (0.5, 2.0), (0.4, 0.52 / 0.24), (0.1, 0.82 / 0.09), (0.01, 10.0)],
)
def test_the_strength_is_the_papers_and_is_clipped(sigma: float, expected: float) -> None:
    guidance = Guidance(torch.zeros(2, 3, 1), torch.zeros(2, 3), torch.tensor([10.0, 0.5]))
    np.testing.assert_allclose(guidance.strength(sigma).flatten(), [expected, 0.5], rtol=1e-6)


def test_rows_of_a_guided_call_do_not_depend_on_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    noise, left_over = torch.randn(3, 6, 4, generator=generator), torch.randn(3, 6, 2, generator=generator)
    weights, max_weights = torch.rand(3, 6, generator=generator), torch.tensor([1.0, 5.0, 10.0])

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return torch.sin(x.cumsum(1) * (1 + sigma))

    together = flow.integrate(guided(velocity, Guidance(left_over, weights, max_weights)), noise, 5)
    for row in range(3):
        own = slice(row, row + 1)
        alone = Guidance(left_over[own], weights[own], max_weights[own])
        result = flow.integrate(guided(velocity, alone), noise[own], 5)
        torch.testing.assert_close(together[own], result, atol=1e-6, rtol=0)


def test_guidance_works_in_inference_mode_on_inference_tensors() -> None:
    noise, left_over = torch.randn(1, 6, 4), torch.randn(1, 6, 4)

    def integrated() -> Tensor:
        guidance = Guidance(left_over.clone(), torch.ones(1, 6), torch.tensor([5.0]))
        return flow.integrate(guided(lambda x, sigma: x.sin(), guidance), noise.clone(), 3)

    with torch.inference_mode():
        inside = integrated()
        assert torch.is_inference_mode_enabled()
    assert not inside.requires_grad
    torch.testing.assert_close(inside.clone(), integrated())


def test_a_prefix_is_clean_in_every_step_and_the_rest_is_integrated() -> None:
    left_over, seen = torch.randn(2, 5, 2), []
    prefix = Prefix(left_over, torch.tensor([0, 3]))

    def velocity(x: Tensor, sigma: float) -> Tensor:
        seen.append(prefix.put_into(x))
        return x

    result = prefix.put_into(flow.integrate(velocity, torch.randn(2, 5, 3), 4))
    for x in [*seen, result]:
        assert torch.equal(x[1, :3, :2], left_over[1, :3])
        assert torch.equal(x[1, :3, 2], torch.zeros(3))
    assert prefix.is_frozen.sum(1).tolist() == [0, 3]


# ---------------------------------------------------------------------------- flows whose data are known exactly


class Trajectories:
    """Smooth trajectories `[T, 1]` around one of two paths: a mixture of two Gaussian processes.

    Noise and data are jointly Gaussian in each component, so the exact velocity E[noise - data | x] has a closed form.
    """

    LENGTH, SCALE, SPREAD, STEPS = 24, 6.0, 0.15, 40

    def __init__(self) -> None:
        steps = torch.arange(self.LENGTH, dtype=torch.float64)
        distance = (steps[:, None] - steps) / self.SCALE
        self.covariance = self.SPREAD**2 * torch.exp(-(distance**2) / 2) + 1e-8 * torch.eye(self.LENGTH)
        path = torch.sin(steps / self.LENGTH * math.pi)
        self.means = torch.stack([path, -path])

    def sample(self, generator: torch.Generator, component: int) -> Tensor:
        draw = torch.randn(self.LENGTH, generator=generator, dtype=torch.float64)
        return self.means[component] + torch.linalg.cholesky(self.covariance) @ draw

    def velocity(self, x: Tensor, sigma: float) -> Tensor:
        share = 1 - sigma
        total = share**2 * self.covariance + sigma**2 * torch.eye(self.LENGTH)
        rest = x[..., 0, None].transpose(1, 2) - share * self.means  # [R, 2, T]
        solved = torch.linalg.solve(total, rest.flatten(0, 1).T).T.reshape(rest.shape)
        parts = torch.softmax(-0.5 * (rest * solved).sum(-1), dim=-1)
        noise = sigma * solved
        data = self.means + share * solved @ self.covariance
        return (parts[..., None] * (noise - data)).sum(1)[..., None]


def test_the_flow_of_known_data_gives_such_data() -> None:
    known, generator = Trajectories(), torch.Generator().manual_seed(0)
    noise = torch.randn(400, known.LENGTH, 1, generator=generator, dtype=torch.float64)
    samples = flow.integrate(known.velocity, noise, known.STEPS)[..., 0]
    nearest = (samples[:, None] - known.means).pow(2).mean(-1).sqrt().amin(1)
    assert nearest.median() < 1.5 * known.SPREAD
    assert 0.35 < (samples[:, known.LENGTH // 2] > 0).double().mean() < 0.65


@pytest.mark.parametrize("schedule", ["LINEAR", "EXP", "ONES"])
@pytest.mark.parametrize("num_steps", [5, 10])
def test_guidance_makes_the_seam_at_least_five_times_smaller(schedule: str, num_steps: int) -> None:
    known, generator, rows, executed = Trajectories(), torch.Generator().manual_seed(3), 200, 8
    old = torch.stack([known.sample(generator, row % 2) for row in range(rows)])
    # the new chunk is seen from the same time base: what is left of the old one are its steps from `executed` on
    left = torch.cat([old[:, executed:], old[:, -1:].expand(-1, executed)], dim=1)[..., None]
    known.means = torch.cat([known.means[:, executed:], known.means[:, -1:].expand(-1, executed)], dim=1)
    noise = torch.randn(rows, known.LENGTH, 1, generator=generator, dtype=torch.float64)
    weights = torch.from_numpy(prefix_weights(schedule, DELAY, HORIZON, known.LENGTH)).expand(rows, -1)  # type: ignore[arg-type]
    guidance = Guidance(left, weights, torch.full((rows,), 10.0))

    free = flow.integrate(known.velocity, noise, num_steps)
    continued = flow.integrate(guided(known.velocity, guidance), noise, num_steps)

    without, with_guidance = ((each - left)[:, DELAY].abs().mean() for each in (free, continued))
    assert without > 5 * with_guidance
