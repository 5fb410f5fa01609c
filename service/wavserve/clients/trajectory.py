"""The arithmetic of the action player: how a command is limited, how a robot comes to rest, how two trajectories blend.

Pure functions over `[n, A]` arrays of commands, one row per control step. Knows neither chunks nor time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Commands = NDArray[np.float64]
"""`[n, A]` or `[A]`, in the action's units"""


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """How a robot comes to rest. Positions and offsets slow down alike: the way per step falls evenly to zero."""

    num_steps: int
    """in which it comes to rest"""
    at_once: NDArray[np.bool_]
    """`[A]`: dimensions that stop at once"""
    offsets: NDArray[np.bool_]
    """`[A]`: dimensions whose command is the way itself, so that a robot at rest is sent 0"""

    def at(self, last: Commands) -> Commands:
        """`[A]`: the command that keeps a robot at rest where `last [A]` brought it."""
        return np.where(self.offsets, 0.0, last)

    def ramp(self, last: Commands, velocity: Commands) -> Commands:
        """`[n, A]`: the commands after `last [A]` that bring the robot to rest; `velocity [A]`: of positions, per step.

        The last row is where the robot rests. It is the only one for 0 steps.
        """
        if self.num_steps < 1:
            return self.at(last)[None]
        fractions = np.arange(self.num_steps - 1, -1, -1)[:, None] / self.num_steps
        ways = fractions * np.where(self.at_once, 0.0, np.where(self.offsets, last, velocity))
        ramp: Commands = np.where(self.offsets, ways, last + np.cumsum(ways, axis=0))
        return ramp


def first_rows(rows: Commands, num_rows: int) -> Commands:
    """`[num_rows, A]`: the first rows; a shorter trajectory rests at its last row."""
    missing = num_rows - len(rows)
    return rows[:num_rows] if missing <= 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])


def blend(old: Commands, new: Commands, weights: Commands, replaced: Sequence[int]) -> Commands:
    """`[n, A]`: `new [n, A]`, whose first rows are mixed with `old [m, A]`. `weights [m]` are those of the new rows.

    The dimensions in `replaced` take the new rows at once.
    """
    mixed = new.copy()
    num_rows = len(weights)
    mixed[:num_rows] = old + weights[:, None] * (new[:num_rows] - old)
    mixed[:, replaced] = new[:, replaced]
    return mixed


def limited(target: Commands, low: Commands, high: Commands, last: Commands | None, max_step: Commands) -> Commands:
    """`[A]`: the target within its range, and at most `max_step` from the last command. Unlimited: infinity.

    A last command outside of the range may stay where it is: a limit by itself moves nothing.
    """
    if last is None:
        return np.clip(target, low, high)
    inside = np.clip(target, np.minimum(low, last), np.maximum(high, last))
    return np.clip(inside, last - max_step, last + max_step)
