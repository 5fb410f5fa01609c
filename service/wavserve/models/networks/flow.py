"""Flow matching: the schedule of noise levels and the Euler integration, used by all three models and both paths.

`x_t = (1 - s) data + s noise`; a network predicts `noise - data`; its timestep is `1000 s`. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
"""A model at a sample and its noise level."""

OnStep = Callable[[Tensor], None]
"""Given the sample after each step; what it raises ends the integration."""

TIMESTEPS = 1000
"""Timestep of pure noise (sigma 1)."""

MAX_LEVELS = 128
"""Noise levels whose embeddings a fast path keeps: they are the same in every plan of as many flow steps."""


def schedule(num_steps: int) -> Tensor:
    """Noise levels `[num_steps + 1]` float32 on the CPU: from 1 down to `1 / num_steps`, then 0.

    Raises ValueError when `num_steps < 1`.
    """
    if num_steps < 1:
        raise ValueError(f"flow steps: expected at least 1, got {num_steps}")
    levels = np.append(np.linspace(1.0, 1.0 / num_steps, num_steps), 0.0)  # float64, rounded once
    return torch.from_numpy(levels.astype(np.float32))


def integrate(velocity: Velocity, noise: Tensor, num_steps: int, on_step: OnStep | None = None) -> Tensor:
    """Euler from `noise` to data: `x <- x + (s_next - s) velocity(x, s)`, in the dtype of `noise`."""
    return _euler(velocity, noise, schedule(num_steps), on_step)


def approach(velocity: Velocity, noise: Tensor, num_steps: int, on_step: OnStep | None = None) -> tuple[Tensor, float]:
    """The sample and its noise level where the last of `num_steps` begins; one step: the noise itself, at 1."""
    sigmas = schedule(num_steps)[:-1]
    return _euler(velocity, noise, sigmas, on_step), sigmas[-1].item()


def _euler(velocity: Velocity, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
    for sigma, step in zip(sigmas[:-1].tolist(), sigmas.diff().tolist(), strict=True):
        x = x + velocity(x, sigma).to(x.dtype) * step
        if on_step is not None:
            on_step(x)
    return x
