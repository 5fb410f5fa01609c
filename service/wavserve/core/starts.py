"""Starts near the shipped initial states, and seeds that tell what a start is for.

The shipped states as they are belong to the headline evaluation alone. Knows no simulator.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from wavserve.core.simulation import Start, TaskInfo, Variation


class Purpose(IntEnum):
    """What a start is for. Its seed modulo 3 tells it, so starts of different purposes never share one."""

    TRAINING = 0
    CHOOSING = 1
    """of checkpoints and options, and evaluation apart from the shipped states"""
    REFERENCE = 2


_MAX_SEEDS = 2**32 // len(Purpose)
_IN_A_RUN = 1
"""part of the key of an evaluation's seeds"""


def seed_for(purpose: Purpose, rng: np.random.Generator) -> int:
    """Draws a seed for a purpose, 0 to 2**32 - 1."""
    return int(rng.integers(_MAX_SEEDS)) * len(Purpose) + purpose


def shifted_seed(task: TaskInfo, state_index: int, seed: int) -> int:
    """The seed of a shifted episode. `seed`: of the whole evaluation. No demonstration has it."""
    key = [*task.suite.encode(), task.index, Purpose.CHOOSING, seed, state_index, _IN_A_RUN]
    return seed_for(Purpose.CHOOSING, np.random.default_rng(key))


def shifted_start(suite: str, task: int, state_index: int, seed: int, shift_m: float) -> Start:
    """An initial state, moved as those of demonstrations are: objects by up to `shift_m`, the destination by half of
    it, and the arm a little. 0: the initial state as it was shipped."""
    variation = Variation(seed, shift_m, shift_m, shift_m / 2) if shift_m else None
    return Start(suite, task, state_index, seed, variation)
