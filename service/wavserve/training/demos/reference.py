"""The goal pictures of a task: what its cameras see at the end of an undisturbed run of the expert.

Every episode of the task is compared with them, so a failure has goal pictures too. Knows no files.
"""

from __future__ import annotations

import numpy as np

from wavserve.core.errors import SimulationError, SimulatorDied
from wavserve.core.resize import Pixels
from wavserve.core.simulation import PrivilegedEnvironment, TaskInfo
from wavserve.training.demos.expert import Expert
from wavserve.training.demos.pictures import decoded, encoded
from wavserve.training.demos.protocol import RecordingConfig
from wavserve.training.demos.recording import settle
from wavserve.training.demos.starts import reference_start

_MAX_ATTEMPTS = 5
_SETTLING_STEPS = 10


def goal_pictures(
    environment: PrivilegedEnvironment, task: TaskInfo, seed: int, config: RecordingConfig
) -> dict[str, Pixels]:
    """By camera. Raises SimulationError when the expert solves the task from none of a few starts."""
    for attempt in range(_MAX_ATTEMPTS):
        environment.reset(reference_start(task, seed, attempt))
        settle(environment, _SETTLING_STEPS)
        if _solves(environment, task.max_steps, config.tail_steps):
            return decoded(encoded(environment.images(), config.size))
    raise SimulationError(f"{task.suite} task {task.index}: the expert solves it from none of {_MAX_ATTEMPTS} starts")


def _solves(environment: PrivilegedEnvironment, max_steps: int, tail_steps: int) -> bool:
    """Also false where the hand finds no grasp, and where the simulation diverges."""
    try:
        expert = Expert(environment.layout(), environment.poses())
        for _ in range(max_steps):
            if environment.step(expert.act(environment.poses())):
                for _ in range(tail_steps):
                    environment.step(np.asarray(expert.act(environment.poses())))
                return True
    except SimulatorDied:
        raise
    except SimulationError:
        return False
    return False
