"""Which recorded actions a policy should learn to make. Knows episodes only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wavserve.training.episode import Episode

_DISTURBED = 0.25
"""An executed action that differs more from its label than this was pushed: later labels answer the push, which nothing
before it foretells. So do the expert's first labels after a policy that acted badly."""


def imitated(episode: Episode) -> NDArray[np.bool_]:
    """`[T]`: whether a policy should learn to act as the label says: the expert's, where it led to success."""
    return episode.is_expert & episode.info.success


def labels(episode: Episode, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`[P, T]` of steps `[P, T]`: those within the episode, imitated, and before any push or any command of another
    policy has had its effect."""
    inside = steps < episode.info.num_steps
    now = np.minimum(steps, episode.info.num_steps - 1)
    is_label = imitated(episode)[now]
    disturbed = (episode.disturbance()[now] > _DISTURBED) | ~is_label
    num_before = np.cumsum(disturbed, axis=1, dtype=np.int64) - disturbed
    return np.asarray(inside & is_label & (num_before == 0), np.bool_)
