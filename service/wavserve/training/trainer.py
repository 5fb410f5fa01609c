"""What a stage's training consists of at one moment: weights, their average, AdamW's moments, the number of steps.

A step depends on these and on its number alone. Knows neither the models nor the losses, and no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from wavserve.core.errors import BundleError
from wavserve.training.checkpoint import Checkpoint
from wavserve.training.recipe import Optimisation

_BETAS = (0.9, 0.98)
_KINDS = ("weights", "average", "first", "second")
"""of a checkpoint's tensors, one of each for every weight"""
_LEAST_RATE = 0.02
"""the learning rate at the end, as a fraction"""
_YOUNG = 19
"""After n steps the old average weighs n / (n + 19), until that is `ema`: so it soon forgets the first weights."""


class Objective(Protocol):
    """What a stage trains, and towards what."""

    def modules(self) -> Mapping[str, nn.Module]:
        """The modules whose weights change, by name."""

    def fixed(self) -> Mapping[str, Tensor]:
        """Numbers that stay as they were at the first step, such as statistics."""

    def losses(self, step: int) -> dict[str, Tensor]:
        """Scalar terms of one step. `loss` is what is minimised; the others are shown."""

    def evaluate(self) -> dict[str, float]:
        """Figures on episodes that are held out, with the weights that the modules have now. One that these episodes
        do not define is left out."""


class Trainer:
    """The state of a stage's training."""

    def __init__(self, objective: Objective, optimisation: Optimisation) -> None:
        self._objective, self._optimisation = objective, optimisation
        named = ((f"{part}.{name}", p) for part, m in objective.modules().items() for name, p in m.named_parameters())
        self._weights: dict[str, nn.Parameter] = dict(named)
        self._average = {name: p.detach().clone() for name, p in self._weights.items()}
        self._adam = torch.optim.AdamW(_groups(self._weights, optimisation), betas=_BETAS, fused=True)
        self.step = 0

    @property
    def is_done(self) -> bool:
        return self.step >= self._optimisation.num_steps

    @property
    def num_steps(self) -> int:
        """Of the whole stage."""
        return self._optimisation.num_steps

    def advance(self) -> dict[str, float]:
        """One step. Returns its terms and the norm of its gradient. Raises BundleError when one is not finite."""
        for group in self._adam.param_groups:
            group["lr"] = _rate(self.step, self._optimisation)
        terms = self._objective.losses(self.step)
        self._adam.zero_grad(set_to_none=True)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._weights.values(), self._optimisation.max_gradient)
        shown = {**{name: term.item() for name, term in terms.items()}, "gradient": norm.item()}
        if not all(map(math.isfinite, shown.values())):
            raise BundleError(f"step {self.step}: expected finite losses, got {shown}")
        for parameter in self._weights.values():
            if parameter.grad is None:  # so that each weight has AdamW's moments from the first step on
                parameter.grad = torch.zeros_like(parameter)
        self._adam.step()
        self.step += 1
        decay = min(self._optimisation.ema, self.step / (self.step + _YOUNG))
        torch._foreach_lerp_(list(self._average.values()), [p.detach() for p in self._weights.values()], 1 - decay)
        return shown

    def evaluate(self) -> dict[str, float]:
        """Figures with the average of the weights, which the modules have only meanwhile.

        Raises BundleError when one is not finite.
        """
        kept = {name: p.detach().clone() for name, p in self._weights.items()}
        self._put(self._average)
        try:
            with torch.no_grad():
                figures = self._objective.evaluate()
        finally:
            self._put(kept)
        if not all(map(math.isfinite, figures.values())):
            raise BundleError(f"step {self.step}: expected finite figures on held-out episodes, got {figures}")
        return figures

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        moments = {name: self._adam.state.get(p) or _no_moments(p) for name, p in self._weights.items()}
        return {
            **{f"weights.{name}": p.detach() for name, p in self._weights.items()},
            **{f"average.{name}": tensor for name, tensor in self._average.items()},
            **{f"first.{name}": moment["exp_avg"] for name, moment in moments.items()},
            **{f"second.{name}": moment["exp_avg_sq"] for name, moment in moments.items()},
            **{f"fixed.{name}": tensor for name, tensor in self._objective.fixed().items()},
        }

    def restore(self, saved: Checkpoint) -> None:
        """Goes on from a checkpoint of this objective. Raises BundleError for a tensor that is missing or misshapen."""
        weights, average, first, second = (self._checked(saved, kind) for kind in _KINDS)
        self._put(weights)
        for name, tensor in average.items():
            self._average[name].copy_(tensor)
        self.step = saved.about.step
        for name, parameter in self._weights.items():
            self._adam.state[parameter] = adam_state(self.step, first[name], second[name], parameter.device)

    def _checked(self, saved: Checkpoint, kind: str) -> dict[str, Tensor]:
        """A checkpoint's tensors of one kind: one of each weight's shape, and no others."""
        found = saved.of(kind)
        for name in self._weights.keys() | found.keys():
            shapes = [list(each[name].shape) if name in each else None for each in (self._weights, found)]
            if shapes[0] != shapes[1]:
                raise BundleError(f"checkpoint: {kind}.{name}: expected shape {shapes[0]}, got {shapes[1]}")
        return found

    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._weights.items():
            parameter.data.copy_(tensors[name])


def _groups(weights: Mapping[str, nn.Parameter], optimisation: Optimisation) -> list[dict[str, object]]:
    """Matrices decay. Biases and the weights of norms do not."""
    matrices = [p for p in weights.values() if p.dim() > 1]
    others = [p for p in weights.values() if p.dim() <= 1]
    return [
        {"params": params, "weight_decay": decay}
        for params, decay in ((matrices, optimisation.weight_decay), (others, 0.0))
        if params
    ]


def adam_state(step: int, first: Tensor, second: Tensor, device: torch.device) -> dict[str, Tensor]:
    """What AdamW keeps of a weight, all of it on the weight's device: the fused step reads the count there too."""
    state = {"step": torch.tensor(float(step)), "exp_avg": first, "exp_avg_sq": second}
    return {name: tensor.to(device) for name, tensor in state.items()}


def _no_moments(parameter: nn.Parameter) -> dict[str, Tensor]:
    return {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}


def _rate(step: int, optimisation: Optimisation) -> float:
    """The learning rate of a step: warm-up, then constant, then a cosine."""
    warm = min(1.0, (step + 1) / max(optimisation.warmup_steps, 1))
    beyond = max(step / optimisation.num_steps - optimisation.decay_from, 0.0)
    fallen = min(beyond / max(1.0 - optimisation.decay_from, 1e-9), 1.0)
    left = _LEAST_RATE + (1.0 - _LEAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * fallen))
    return optimisation.learning_rate * warm * left
