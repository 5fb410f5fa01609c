"""The dense reward of an episode and its return, after the paper's appendix B.

As in the paper: likeness to goal pictures, nearness to the goal, and penalties on speed and on changes of the command.
The paper's robots know joints only; a simulator knows where the object is, so nearness has terms for the hand and the
object. The weights are ours. Knows no simulator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from wavserve.core.resize import Pixels

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "image_mse": 0.1,  # squared error of both pictures to the goal pictures, smaller than at the start
        "image_ssim": 0.1,  # their structural similarity, greater than at the start
        "hand": 0.2,  # nearness of the hand to the object; 1 once the task is solved
        "object": 0.3,  # nearness of the object to the goal
        "solved": 0.3,
        "speed": -0.05,  # of the hand
        "jerk": -0.05,  # change of the command from step to step
    }
)
"""Every term and its weight. A term lies in [0, 1], so a reward lies in [-0.1, 1]."""
DISCOUNT = 0.98
"""a control step; half of the weight lies on the next 34 steps, 1.7 s"""
_HAND_SCALE_M, _OBJECT_SCALE_M = 0.10, 0.20
"""at which nearness has fallen to 0.24"""
_FULL_SPEED_M = 0.015
"""what a full command moves in a step"""
_WINDOW = 7
"""side of the windows whose structure is compared, in pixels"""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """What the reward of an episode depends on. Row `t + 1` of a position is after the action of step `t`."""

    hand: NDArray[np.float64]
    """`[T + 1, 3]`, in m"""
    object: NDArray[np.float64]
    """`[T + 1, 3]`"""
    goal: NDArray[np.float64]
    """`[T + 1, 3]`"""
    executed_action: NDArray[np.float32]
    """`[T, 7]`"""
    solved: NDArray[np.bool_]
    """`[T]`"""
    picture_steps: NDArray[np.int64]
    """`[P]`"""
    image_errors: NDArray[np.float64]
    """`[P]`: mean squared error to the goal pictures"""
    image_similarities: NDArray[np.float64]
    """`[P]`: structural similarity to the goal pictures"""


def reward_terms(track: Track) -> NDArray[np.float32]:
    """`[T, terms]` in the order of WEIGHTS, each in [0, 1]. A picture counts until the next one is taken."""
    steps = np.arange(len(track.solved))
    shown = np.searchsorted(track.picture_steps, steps + 1, side="right") - 1
    reached = np.linalg.norm(track.hand - track.object, axis=1)[1:]
    left = np.linalg.norm(track.object - track.goal, axis=1)[1:]
    moved = np.linalg.norm(np.diff(track.hand, axis=0), axis=1)
    changed = np.diff(track.executed_action[:, :6], axis=0, prepend=track.executed_action[:1, :6])
    terms = {
        "image_mse": (1.0 - track.image_errors / track.image_errors[0])[shown],
        "image_ssim": (1.0 - (1.0 - track.image_similarities) / (1.0 - track.image_similarities[0]))[shown],
        "hand": np.where(track.solved, 1.0, _nearness(reached, _HAND_SCALE_M)),
        "object": _nearness(left, _OBJECT_SCALE_M),
        "solved": track.solved,
        "speed": (moved / _FULL_SPEED_M) ** 2,
        "jerk": (changed**2).mean(axis=1),
    }
    rows = np.clip(np.stack([terms[name] for name in WEIGHTS], axis=1), 0.0, 1.0)
    return np.asarray(rows, np.float32)


def weighted(terms: NDArray[np.float32], weights: Mapping[str, float] = WEIGHTS) -> NDArray[np.float32]:
    """`[T]`: the reward of `[T, terms]`."""
    return np.asarray(terms @ np.array(list(weights.values())), np.float32)


def returns(reward: NDArray[np.float32], discount: float = DISCOUNT) -> NDArray[np.float32]:
    """`[T]`: the discounted mean of this reward and all later ones, in the range of rewards.

    The last reward goes on for ever: else an episode that goes on without success would get more than one that ends
    with it.
    """
    means = np.empty(len(reward))
    ahead = float(reward[-1])
    for step in reversed(range(len(reward))):
        ahead = means[step] = (1.0 - discount) * float(reward[step]) + discount * ahead
    return means.astype(np.float32)


def image_error(pictures: Sequence[Pixels], goals: Sequence[Pixels]) -> float:
    """Mean squared error over all views, of pixels in [0, 1]."""
    pairs = zip(pictures, goals, strict=True)
    return float(np.mean([np.mean((_unit(one) - _unit(other)) ** 2) for one, other in pairs]))


def image_similarity(pictures: Sequence[Pixels], goals: Sequence[Pixels]) -> float:
    """Structural similarity (SSIM) of the grey pictures, over all views; 1 for equal ones."""
    pairs = zip(pictures, goals, strict=True)
    return float(np.mean([_similarity(_unit(one).mean(-1), _unit(other).mean(-1)) for one, other in pairs]))


def _nearness(distance: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    return np.asarray(1.0 - np.tanh(distance / scale))


def _unit(pixels: Pixels) -> NDArray[np.float64]:
    return pixels / 255.0


def _similarity(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    mean_one, mean_other = _window_means(one), _window_means(other)
    variance_one = _window_means(one**2) - mean_one**2
    variance_other = _window_means(other**2) - mean_other**2
    covariance = _window_means(one * other) - mean_one * mean_other
    light, contrast = 0.01**2, 0.03**2
    similarity = ((2 * mean_one * mean_other + light) * (2 * covariance + contrast)) / (
        (mean_one**2 + mean_other**2 + light) * (variance_one + variance_other + contrast)
    )
    return float(similarity.mean())


def _window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of all windows that lie within the picture."""
    sums = np.pad(values.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    corners = sums[_WINDOW:, _WINDOW:] - sums[:-_WINDOW, _WINDOW:] - sums[_WINDOW:, :-_WINDOW]
    return np.asarray((corners + sums[:-_WINDOW, :-_WINDOW]) / _WINDOW**2)
