"""The schedule and the Euler integration."""

from __future__ import annotations

import pytest
import torch

from wavserve.models.networks import flow


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50])
def test_the_schedule_falls_evenly_from_one_to_zero(num_steps: int) -> None:
    sigmas = flow.schedule(num_steps)

    assert sigmas.dtype == torch.float32
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert torch.allclose(sigmas.diff(), torch.full((num_steps,), -1 / num_steps), atol=1e-6)


def test_a_schedule_needs_a_step() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        flow.schedule(0)


def test_integrating_the_true_velocity_gives_the_data() -> None:
    noise, data = torch.randn(3, 4), torch.randn(3, 4)

    assert torch.allclose(flow.integrate(lambda x, sigma: noise - data, noise, 7), data, atol=1e-6)


def test_on_step_sees_every_sample_and_the_last_is_the_result() -> None:
    seen: list[torch.Tensor] = []

    result = flow.integrate(lambda x, sigma: x * sigma, torch.ones(2), 5, seen.append)

    assert len(seen) == 5
    assert torch.equal(seen[-1], result)


def test_approach_stops_where_the_last_step_begins() -> None:
    seen: list[torch.Tensor] = []

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x * sigma

    x, sigma = flow.approach(velocity, torch.ones(2), 4)
    flow.integrate(velocity, torch.ones(2), 4, seen.append)

    assert sigma == 0.25
    assert torch.equal(x, seen[-2])


def test_approaching_in_one_step_is_the_noise_itself() -> None:
    noise = torch.randn(2)

    x, sigma = flow.approach(lambda x, s: pytest.fail("one step asks for no velocity"), noise, 1)

    assert sigma == 1
    assert torch.equal(x, noise)


def test_the_sample_keeps_its_dtype_whatever_the_model_computes_in() -> None:
    result = flow.integrate(lambda x, sigma: x.bfloat16(), torch.ones(2), 3)

    assert result.dtype == torch.float32
