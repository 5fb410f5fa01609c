"""Reads positions from latents, so that the autoencoder keeps where things are.

A policy reads latents by their content. The auxiliary loss asks for latents from which a small attention pooling can
tell where the object, its destination and the gripper are. It is trained with the autoencoder and thrown away.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from wavserve.training.episode import Episode

_WIDTH, _HEADS = 128, 8
NUM_NUMBERS = 12


def positions(episode: Episode, steps: NDArray[np.int64]) -> NDArray[np.float32]:
    """`[n, 12]` in m at `n` steps: of the object, its destination, the gripper, and of the object from the gripper."""
    privileged, gripper = episode.privileged[steps], episode.state[steps, :3]
    return np.concatenate([privileged, gripper, privileged[:, :3] - gripper], axis=1)


class Readout(nn.Module):
    """Latents `[B, V, C, H, W]` and the task `[B]` -> standardised positions `[B, 12]`."""

    def __init__(self, channels: int, num_views: int, num_tasks: int) -> None:
        super().__init__()
        self.inside = nn.Linear(channels, _WIDTH)
        self.view = nn.Parameter(torch.zeros(num_views, _WIDTH))
        self.task = nn.Parameter(torch.zeros(num_tasks, _WIDTH))
        self.mixed = nn.Linear(_WIDTH, _WIDTH)
        self.key, self.value = nn.Linear(_WIDTH, _HEADS), nn.Linear(_WIDTH, _WIDTH)
        self.out = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, NUM_NUMBERS))

    def forward(self, latents: Tensor, task: Tensor) -> Tensor:
        tokens = latents.flatten(3).transpose(2, 3)
        x = F.gelu(self.inside(tokens) + self.view[:, None] + self.task[task][:, None, None])
        x = F.gelu(self.mixed(x)).flatten(1, 2)
        share = self.key(x).softmax(dim=1)
        value = self.value(x).unflatten(-1, (_HEADS, -1))
        pooled: Tensor = self.out((share.unsqueeze(-1) * value).sum(1).flatten(1))
        return pooled
