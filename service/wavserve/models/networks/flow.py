"""Flow matching: the schedule of noise levels and the Euler integration.

At noise level `s` (sigma) a sample is `x = (1 - s) data + s noise`. A network predicts the velocity `noise - data` at
timestep `1000 s`. This module knows no model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
"""`velocity(x, sigma)`: a model's prediction for sample `x` at noise level `sigma`, in the shape of `x`."""

OnStep = Callable[[Tensor], None]
"""A function that is called with the sample after each step. If it raises, the integration ends."""

TIMESTEPS = 1000
"""Timestep of pure noise (sigma 1)."""

MAX_CACHED_LEVELS = 128
"""Noise levels whose time embeddings a fast path caches. Plans with the same number of steps have the same levels."""


def schedule(num_steps: int) -> Tensor:
    """Noise levels `[num_steps + 1]` float32 on the CPU: `num_steps` levels from 1 down to `1 / num_steps`, then 0.

    Raises ValueError when `num_steps < 1`.
    """
    if num_steps < 1:
        raise ValueError(f"flow steps: expected at least 1, got {num_steps}")
    levels = np.append(np.linspace(1.0, 1.0 / num_steps, num_steps), 0.0)  # float64, rounded once
    return torch.from_numpy(levels.astype(np.float32))


def integrate(velocity: Velocity, noise: Tensor, num_steps: int, on_step: OnStep | None = None) -> Tensor:
    """Euler integration from `noise` to data: `x <- x + (s_next - s) velocity(x, s)`, in the dtype of `noise`.

    Raises ValueError when `num_steps < 1`.
    """
    return _euler(velocity, noise, schedule(num_steps), on_step)


def integrate_to_last_step(
    velocity: Velocity, noise: Tensor, num_steps: int, on_step: OnStep | None = None
) -> tuple[Tensor, float]:
    """The sample and the noise level at the start of the last of `num_steps` steps. With one step: the noise, at 1.

    Raises ValueError when `num_steps < 1`.
    """
    sigmas = schedule(num_steps)[:-1]
    return _euler(velocity, noise, sigmas, on_step), sigmas[-1].item()


def _euler(velocity: Velocity, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
    for sigma, step in zip(sigmas[:-1].tolist(), sigmas.diff().tolist(), strict=True):
        x = x + velocity(x, sigma).to(x.dtype) * step
        if on_step is not None:
            on_step(x)
    return x
