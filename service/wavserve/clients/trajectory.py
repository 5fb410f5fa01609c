"""The arithmetic of the action player: how a command is limited, how a robot comes to rest, how two trajectories blend.

Pure functions over `[n, A]` arrays of commands, one row per control step. Knows neither chunks nor time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Commands = NDArray[np.float64]
"""`[n, A]` or `[A]`, in the action's units"""


def stop_ramp(last: Commands, velocity: Commands, num_steps: int) -> Commands:
    """`[num_steps, A]`: the commands after `last [A]` that bring `velocity [A]` (per step) evenly to zero.

    The last row is where the robot rests. It is `last` itself for 0 steps, so at least one row is given.
    """
    if num_steps < 1:
        return last[None]
    fractions = np.arange(num_steps - 1, -1, -1)[:, None] / num_steps
    ramp: Commands = last + np.cumsum(fractions * velocity, axis=0)
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
