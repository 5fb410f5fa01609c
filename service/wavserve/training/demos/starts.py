"""Starts of demonstrations and of reference runs: drawn near the shipped ones, by seeds that nothing else uses.

The shipped initial states as they are belong to the headline evaluation alone. Knows no simulator.
"""

from __future__ import annotations

import numpy as np

from wavserve.core.simulation import Start, TaskInfo, Variation
from wavserve.core.starts import Purpose, seed_for


def training_start(task: TaskInfo, number: int, seed: int, attempt: int = 0) -> Start:
    """The start of a demonstration. `number`: of the episode in its task. `attempt`: after a start that is no good."""
    return _start(task, Purpose.TRAINING, (seed, number, attempt))


def reference_start(task: TaskInfo, seed: int, attempt: int) -> Start:
    """The start of the run whose last pictures are the goal pictures of a task."""
    return _start(task, Purpose.REFERENCE, (seed, 0, attempt))


def _start(task: TaskInfo, purpose: Purpose, key: tuple[int, ...]) -> Start:
    rng = np.random.default_rng([*task.suite.encode(), task.index, purpose, *key])
    seed = seed_for(purpose, rng)
    return Start(task.suite, task.index, int(rng.integers(task.num_states)), seed, Variation(seed))
