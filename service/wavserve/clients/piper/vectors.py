"""Between the arms (rad, m) and the policy's vectors (its units, its order): the only place where units change.

Knows numpy and the configuration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wavserve.clients.piper.config import PiperConfig
from wavserve.clients.piper.limits import AXIS_RANGES, NUM_AXES, NUM_JOINTS
from wavserve.core.messages import Vector
from wavserve.core.spec import LimitsSpec

Axes = NDArray[np.float64]
"""`[A]`: six joints and the gripper of each arm, in rad and m"""

_PER_RAD = {"rad": 1.0, "deg": 180.0 / math.pi}
_PER_M = {"m": 1.0, "mm": 1000.0}


class Units:
    """Converts whole vectors `[..., A]`."""

    def __init__(self, config: PiperConfig) -> None:
        one_arm = [_PER_RAD[config.units.joint]] * NUM_JOINTS + [_PER_M[config.units.gripper]]
        self._scale: Axes = np.array(one_arm * len(config.arms), dtype=np.float64)

    def to_policy(self, axes: Axes) -> Axes:
        values: Axes = axes * self._scale
        return values

    def from_policy(self, values: NDArray[np.floating]) -> Axes:
        axes: Axes = np.asarray(values, dtype=np.float64) / self._scale
        return axes


def vector(config: PiperConfig) -> Vector:
    """Names and units of the state and of an action, as this robot has them."""
    return Vector(config.axis_names, config.axis_units)


def grippers(config: PiperConfig) -> tuple[int, ...]:
    """Indices of the grippers."""
    return tuple(arm * NUM_AXES + NUM_JOINTS for arm in range(len(config.arms)))


def max_steps(config: PiperConfig, share: float = 1.0) -> Axes:
    """`[A]`: the largest change of a command from one step to the next; `share` of the configured speeds."""
    motion = config.motion
    one_arm = [motion.max_joint_speed] * NUM_JOINTS + [motion.max_gripper_speed]
    return np.array(one_arm * len(config.arms)) * config.dt_s * share


def reach(config: PiperConfig) -> Axes:
    """`[A]`: the largest absolute value that each axis reaches."""
    return np.array([max(abs(low), abs(high)) for low, high in AXIS_RANGES * len(config.arms)], dtype=np.float64)


def ranges(config: PiperConfig, declared: LimitsSpec | None = None) -> tuple[Axes, Axes]:
    """Lowest and highest command `[A]`: the arm's range less the margin, and what the policy declares, if narrower."""
    margin = np.array(([config.motion.joint_margin] * NUM_JOINTS + [0.0]) * len(config.arms))
    low, high = np.array(AXIS_RANGES * len(config.arms)).T
    low, high = low + margin, high - margin
    if declared is not None and declared.position:
        units = Units(config)
        open_ended = [(-math.inf, math.inf) if each is None else each for each in declared.position]
        bottom, top = np.array(open_ended, dtype=np.float64).T
        low, high = np.maximum(low, units.from_policy(bottom)), np.minimum(high, units.from_policy(top))
    return low, high


def split(axes: Axes) -> Sequence[tuple[float, ...]]:
    """One tuple `[7]` for each arm."""
    return [tuple(each) for each in axes.reshape(-1, NUM_AXES).tolist()]
