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


def test_a_schedule_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        flow.schedule(0)


def test_integrating_the_true_velocity_gives_the_data() -> None:
    noise, data = torch.randn(3, 4), torch.randn(3, 4)

    assert torch.allclose(flow.integrate(lambda x, sigma: noise - data, noise, 7), data, atol=1e-6)


def test_on_step_gets_every_sample_and_the_last_is_the_result() -> None:
    samples: list[torch.Tensor] = []

    result = flow.integrate(lambda x, sigma: x * sigma, torch.ones(2), 5, samples.append)

    assert len(samples) == 5
    assert torch.equal(samples[-1], result)


def test_integrate_to_last_step_stops_where_the_last_step_begins() -> None:
    samples: list[torch.Tensor] = []

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x * sigma

    x, sigma = flow.integrate_to_last_step(velocity, torch.ones(2), 4)
    flow.integrate(velocity, torch.ones(2), 4, samples.append)

    assert sigma == 0.25
    assert torch.equal(x, samples[-2])


def test_the_last_of_one_step_begins_at_the_noise_itself() -> None:
    noise = torch.randn(2)

    x, sigma = flow.integrate_to_last_step(lambda x, s: pytest.fail("one step needs no velocity"), noise, 1)

    assert sigma == 1
    assert torch.equal(x, noise)


def test_the_sample_keeps_its_dtype_whatever_the_model_computes_in() -> None:
    result = flow.integrate(lambda x, sigma: x.bfloat16(), torch.ones(2), 3)

    assert result.dtype == torch.float32
