"""One recorded episode: what the robot saw, what it was told, and what the simulator knows.

Data only. Knows no file and no simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["expert", "recovery", "policy", "failure"]
"""`expert`: the expert alone solved the task. `recovery`: a policy acted first, then the expert solved it. `policy`: a
policy solved it alone. `failure`: nobody did."""
PRIVILEGED_NAMES = ("object_x", "object_y", "object_z", "destination_x", "destination_y", "destination_z")
"""Positions in m that only a simulator knows: of the object to move, and of the place where it must go."""


@dataclass(frozen=True, slots=True)
class EpisodeInfo:
    """What an episode is."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    suite: str
    task: int
    """index in the suite"""
    instruction: str
    number: int
    """of the episode, among those of its task"""
    seed: int
    """of its start, its disturbances and its settling steps"""
    kind: Kind
    success: bool
    num_steps: int
    """T: control steps, with those after the success"""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Episode:
    """Row `t` of an array belongs to control step `t`: its state comes before its action, its reward after it."""

    info: EpisodeInfo
    state: NDArray[np.float32]
    """`[T, 8]`"""
    action: NDArray[np.float32]
    """`[T, 7]`: the label. Where a policy acts, it is what the policy commands."""
    executed_action: NDArray[np.float32]
    """`[T, 7]`: what the robot got. A disturbance makes it differ from the label."""
    is_expert: NDArray[np.bool_]
    """`[T]`: the label is the expert's"""
    privileged: NDArray[np.float32]
    """`[T, 6]`, see PRIVILEGED_NAMES"""
    solved: NDArray[np.bool_]
    """`[T]`: the action of the step leaves the task solved"""
    reward_terms: NDArray[np.float32]
    """`[T, R]`, without their weights; the names are the data set's"""
    reward: NDArray[np.float32]
    """`[T]`: the weighted sum of the terms"""
    returns: NDArray[np.float32]
    """`[T]`: the discounted mean of this reward and all later ones"""
    picture_steps: NDArray[np.int64]
    """`[P]`: the control steps at which pictures were taken, before the action; the first is 0"""
    pictures: Mapping[str, tuple[bytes, ...]]
    """`[P]` by camera: JPEG as a robot sends it, turned as the policy wants it; none when they were not read"""

    def picture_ages(self) -> NDArray[np.int64]:
        """`[T]`: steps since the last picture."""
        steps = np.arange(self.info.num_steps)
        return np.asarray(steps - self.picture_steps[self.picture_indices()], np.int64)

    def picture_indices(self) -> NDArray[np.int64]:
        """`[T]`: the last picture at each step, as an index into the pictures of a camera."""
        steps = np.arange(self.info.num_steps)
        return np.asarray(np.searchsorted(self.picture_steps, steps, side="right") - 1, np.int64)

    def disturbance(self) -> NDArray[np.float32]:
        """`[T]`: the largest difference of an executed action and its label, over the first six dimensions."""
        return np.asarray(np.abs(self.executed_action - self.action)[:, :6].max(axis=1), np.float32)
