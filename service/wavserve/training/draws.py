"""The draws of a training step, named by seed, stage and step, so that any step can be made again.

They are made on the CPU: every device trains on the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavserve.training.initial import named_generator


class Draws:
    """Draws of one step, in the order in which they are asked for."""

    def __init__(self, seed: int, stage: str, step: int, device: torch.device) -> None:
        self._generator, self.device = named_generator(f"{seed}:{stage}:{step}"), device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        """In 0..1, without 1."""
        return torch.rand(shape, generator=self._generator).to(self.device)

    def below(self, high: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to `high - 1`."""
        return torch.randint(high, shape, generator=self._generator).to(self.device)
