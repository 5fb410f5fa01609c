"""A flow that continues a left-over (real-time chunking): guided by it, or conditioned on it as a clean prefix.

Guidance (arXiv 2506.07339, equations 1 to 4): at noise level `s` the sample `x` implies the data `x - s v(x)`. The
error of the data towards the left-over goes back through the network to `x`, as a vector-Jacobian product, and corrects
the velocity. This module knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wavserve.models.networks.flow import Velocity


@dataclass(frozen=True, slots=True)
class Guidance:
    """The left-overs of R samples. Their channels are the first ones of a sample; the others are free."""

    left_over: Tensor
    """`[R, T, A]`, normalised"""
    weights: Tensor
    """`[R, T]`"""
    max_weight: Tensor
    """`[R]`"""

    def error(self, estimate: Tensor) -> Tensor:
        """The weighted error `[R, T, C]` of estimated data `[R, T, C]`; 0 in free steps and channels."""
        num_channels = self.left_over.shape[-1]
        error = torch.zeros_like(estimate)
        error[..., :num_channels] = (self.left_over - estimate[..., :num_channels]) * self.weights.unsqueeze(-1)
        return error

    def strength(self, sigma: float) -> Tensor:
        """The factor `[R, 1, 1]` of the correction at a noise level.

        The paper's time is tau = 1 - s: (1 - tau) / (tau r^2) with r^2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2). At s = 1
        it is infinite, and `max_weight` limits it.
        """
        tau = 1.0 - sigma
        weight = (tau**2 + sigma**2) / (tau * sigma) if tau * sigma > 0.0 else float("inf")
        return self.max_weight.clamp(max=weight)[:, None, None]


@dataclass(frozen=True, slots=True)
class Prefix:
    """The clean first tokens of R samples, which an action expert was trained to continue (arXiv 2512.05964)."""

    left_over: Tensor
    """`[R, T, A]`, normalised"""
    num_frozen: Tensor
    """`[R]`, int64"""

    @property
    def is_frozen(self) -> Tensor:
        """`[R, T]`: whether a token belongs to the prefix. Such a token has timestep 0."""
        steps = torch.arange(self.left_over.shape[1], device=self.num_frozen.device)
        return steps < self.num_frozen[:, None]

    def put_into(self, x: Tensor) -> Tensor:
        """`x [R, T, C]` with the prefix in its place. Channels of a clean token beyond the action's are 0, as those of
        the history token are that it has no values for."""
        free = x.new_zeros(*x.shape[:2], x.shape[2] - self.left_over.shape[2])
        clean = torch.cat([self.left_over.to(x.dtype), free], dim=2)
        return torch.where(self.is_frozen.unsqueeze(2), clean, x)


def guided(velocity: Velocity, guidance: Guidance) -> Velocity:
    """The guided velocity of samples `[R, T, C]`. `velocity` must be differentiable and must not use inference tensors.

    It works in inference mode too, which it leaves for the derivative. Rows do not depend on each other.
    """

    def corrected(x: Tensor, sigma: float) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            start = x.detach().clone().requires_grad_()
            predicted = velocity(start, sigma).to(start.dtype)
            estimate = start - sigma * predicted
            (correction,) = torch.autograd.grad(estimate, start, guidance.error(estimate.detach()))
        return predicted.detach() - guidance.strength(sigma) * correction

    return corrected
