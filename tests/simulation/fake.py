"""A deterministic environment without a simulator: a point with a gripper must close it at a goal.

Its pictures depend on its state, its state on its actions, and its goal on the start alone. `toward_goal` gives actions
that solve a task.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import InvalidRequest, SimulationError, SimulatorDied
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Start, TaskInfo

Vector = NDArray[np.float64]

STEP_M = 0.05
"""what an action of 1 moves"""
REACH_M = 0.03
"""a gripper that closes within this distance of the goal, in each axis, solves the task"""
SUITES = {
    suite: tuple(
        TaskInfo(suite, index, f"reach_{letter}", f"reach the point {letter}", num_states=5, max_steps=30)
        for index, letter in enumerate(letters)
    )
    for suite, letters in {"fake_reach": "abc", "fake_other": "xy"}.items()
}


def goal_of(start: Start) -> Vector:
    """`[3]`, in metres from the robot's first position."""
    key = [sorted(SUITES).index(start.suite), start.task, start.state_index, start.seed]
    return np.random.default_rng(key).uniform(-0.4, 0.4, 3)


def toward_goal(state: NDArray[Any], goal: Vector) -> Vector:
    """`[7]`: the action that solves the task in the fewest steps. `state`: `[8]`."""
    way = (goal - state[:3]) / STEP_M
    close = 1.0 if np.abs(way).max() <= 1.0 else -1.0
    return np.concatenate([np.clip(way, -1.0, 1.0), np.zeros(3), [close]])


class FakeEnvironment:
    """`fails_at_step`: the control step of every episode at which the simulator dies, counted over `step` calls."""

    def __init__(self, size: int = 32, fails_at_step: int | None = None) -> None:
        self.size = size
        self.fails_at_step = fails_at_step
        self.starts: list[Start] = []
        """of every `reset`"""
        self.num_steps = 0
        """in the present episode"""
        self.num_renders = 0
        """calls of `images`, of all episodes"""
        self.closed = False
        self._position = np.zeros(3)
        self._gripper = -1.0

    def tasks(self, suite: str) -> tuple[TaskInfo, ...]:
        if suite not in SUITES:
            raise InvalidRequest("suite", f"one of {', '.join(SUITES)}", repr(suite))
        return SUITES[suite]

    def reset(self, start: Start) -> TaskInfo:
        tasks = self.tasks(start.suite)
        if not 0 <= start.task < len(tasks):
            raise InvalidRequest("task", f"0 to {len(tasks) - 1}", start.task)
        task = tasks[start.task]
        if not 0 <= start.state_index < task.num_states:
            raise InvalidRequest("state_index", f"0 to {task.num_states - 1}", start.state_index)
        self.starts.append(start)
        self.num_steps = 0
        self._position, self._gripper = np.zeros(3), -1.0
        return task

    def step(self, action: NDArray[np.floating[Any]]) -> bool:
        self._check_alive()
        if np.shape(action) != (7,) or not np.isfinite(action).all():
            raise InvalidRequest("action", "7 finite numbers", action)
        if self.num_steps == self.fails_at_step:
            raise SimulatorDied("the simulator's process ended with code -9")
        self.num_steps += 1
        self._position = self._position + STEP_M * np.clip(np.asarray(action[:3], np.float64), -1.0, 1.0)
        self._gripper = float(np.sign(action[6]))
        return self._gripper > 0 and bool(np.abs(self.goal - self._position).max() < REACH_M)

    @property
    def goal(self) -> Vector:
        return goal_of(self.starts[-1])

    def images(self) -> dict[str, Pixels]:
        """A white dot for the robot and, in `agentview`, a red one for the goal, on a ground that tells them apart."""
        self._check_alive()
        self.num_renders += 1
        agentview = self._ground(40)
        self._draw(agentview, self.goal, (255, 0, 0))
        self._draw(agentview, self._position, (255, 255, 255))
        wrist = self._ground(90)
        self._draw(wrist, self.goal - self._position, (255, 0, 0))
        return {"agentview": agentview, "wrist": wrist}

    def projections(self) -> dict[str, Vector]:
        """`agentview` looks down on x and y."""
        self._check_alive()
        half = self.size / 2.0
        return {"agentview": np.array([[half, 0.0, 0.0, half], [0.0, half, 0.0, half], [0.0, 0.0, 0.0, 1.0]])}

    def state(self) -> Vector:
        """`[8]`: position, axis-angle, the two fingers."""
        self._check_alive()
        finger = 0.02 * (1.0 - self._gripper)
        return np.concatenate([self._position, np.zeros(3), [finger, -finger]])

    def sim_state(self) -> Vector:
        self._check_alive()
        return np.concatenate([[self.num_steps], self._position, [self._gripper]])

    def restore(self, sim_state: Vector) -> None:
        self._check_alive()
        self._position, self._gripper = sim_state[1:4].copy(), float(sim_state[4])

    def versions(self) -> dict[str, str]:
        return {"simulator": "fake 1", "renderer": "fake"}

    def close(self) -> None:
        self.closed = True

    def _check_alive(self) -> None:
        if self.closed or not self.starts:
            raise SimulationError("the environment is closed, or was not reset")

    def _ground(self, grey: int) -> Pixels:
        """Brighter to the right and much brighter at the bottom, so that every turn and mirroring shows."""
        rows, columns = np.mgrid[: self.size, : self.size]
        shade = (grey + 80 * rows // self.size + 30 * columns // self.size).astype(np.uint8)
        return np.repeat(shade[:, :, None], 3, axis=2)

    def _draw(self, picture: Pixels, point: Vector, colour: tuple[int, int, int]) -> None:
        """A dot at x and y; its brightness tells z."""
        column, row = np.clip((point[:2] + 1.0) / 2.0 * self.size, 0, self.size - 3).astype(int)
        brightness = np.clip(0.7 + 0.3 * point[2], 0.4, 1.0)
        picture[row : row + 3, column : column + 3] = (np.array(colour) * brightness).astype(np.uint8)


def starts_of(suite: str, seed: int = 0) -> list[Start]:
    """Every start of a suite."""
    return [Start(suite, task.index, index, seed) for task in SUITES[suite] for index in range(task.num_states)]
