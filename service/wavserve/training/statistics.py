"""The statistics that a policy's numbers are normalised by: made once, then frozen in every checkpoint and the bundle.

Knows episodes, and neither models nor files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavserve.core.errors import BundleError
from wavserve.core.libero import ACTION_NAMES, STATE_NAMES
from wavserve.core.spec import NormSpec
from wavserve.training.checkpoint import required
from wavserve.training.episode import Episode
from wavserve.training.labels import imitated

_MIN_SPAN = 0.02
"""A dimension that hardly moved in the data must not turn a small motion into a huge number."""
_Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Quantiles (q01 and q99) of states and actions; means and deviations of the value's last two channels."""

    state_low: Tensor
    state_high: Tensor
    action_low: Tensor
    action_high: Tensor
    value_mean: Tensor
    """`[2]`: of the reward, of the return"""
    value_std: Tensor

    @property
    def state(self) -> NormSpec:
        return _norm(self.state_low, self.state_high)

    @property
    def action(self) -> NormSpec:
        return _norm(self.action_low, self.action_high)

    @property
    def value(self) -> NormSpec:
        return NormSpec("meanstd", tuple(self.value_mean.double().tolist()), tuple(self.value_std.double().tolist()))

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Statistics:
        """From a checkpoint. Raises BundleError where one is missing."""
        return cls(**required(tensors, [field.name for field in fields(cls)]))

    def values(self, reward: NDArray[np.float32], returns: NDArray[np.float32]) -> Tensor:
        """`[n, 2]`: rewards and returns, standardised, then by symlog, as in the released code."""
        raw = torch.from_numpy(np.stack([reward, returns], axis=-1)).float()
        wide = (raw - self.value_mean) / (self.value_std + 1e-6)
        return wide.sign() * wide.abs().log1p()


_STATE, _ACTION = torch.ones(len(STATE_NAMES)), torch.ones(len(ACTION_NAMES))
UNMEASURED = Statistics(-_STATE, _STATE, -_ACTION, _ACTION, torch.zeros(2), torch.ones(2))
"""Stands for the statistics of data that are not there yet, where only a spec's sizes count."""


def measure(episodes: Iterable[Episode]) -> Statistics:
    """The statistics of the rows of all episodes; of actions, those that are imitated. Raises BundleError without."""
    states, actions, values = [], [], []
    for episode in episodes:
        states.append(episode.state)
        actions.append(episode.action[imitated(episode)])
        values.append(np.stack([episode.reward, episode.returns], axis=-1))
    if not sum(map(len, actions)):
        raise BundleError(f"data: expected an episode that the expert solved, got none among {len(states)}")
    (state_low, state_high), (action_low, action_high) = (_quantiles(np.concatenate(a)) for a in (states, actions))
    value = np.concatenate(values).astype(np.float64)
    mean, std = torch.from_numpy(value.mean(0)).float(), torch.from_numpy(value.std(0)).float()
    return Statistics(state_low, state_high, action_low, action_high, mean, std)


def _quantiles(rows: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    low, high = np.quantile(rows.astype(np.float64), [0.01, 0.99], axis=0)
    missing = np.maximum(_MIN_SPAN - (high - low), 0.0) / 2
    return torch.from_numpy(low - missing).float(), torch.from_numpy(high + missing).float()


def _norm(low: Tensor, high: Tensor) -> NormSpec:
    return NormSpec("minmax", tuple(low.double().tolist()), tuple(high.double().tolist()))
