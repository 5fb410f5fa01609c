"""The episodes of a run, in their order, and the record of one that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import EpisodeKey, RunConfig
from wavserve.core.errors import InvalidRequest
from wavserve.core.simulation import Start, TaskInfo
from wavserve.core.starts import shifted_seed, shifted_start


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode to run."""

    cell: Cell
    task: TaskInfo
    state_index: int
    seed: int
    """of the scene and of the plans; the same in every cell"""
    shift: float = 0.0
    """how far objects are moved from their shipped places, in m"""

    @property
    def key(self) -> EpisodeKey:
        return EpisodeKey(self.cell.name, self.task.suite, self.task.index, self.state_index)

    @property
    def start(self) -> Start:
        return shifted_start(self.task.suite, self.task.index, self.state_index, self.seed, self.shift)


def chosen_tasks(suites: Mapping[str, tuple[TaskInfo, ...]], config: RunConfig) -> list[TaskInfo]:
    """The tasks of a run, suite by suite. Raises InvalidRequest for a task or an initial state that does not exist."""
    chosen = []
    for suite in config.suites:
        tasks = suites[suite]
        for index in config.tasks or range(len(tasks)):
            if not 0 <= index < len(tasks):
                raise InvalidRequest("--tasks", f"0 to {len(tasks) - 1}, the tasks of {suite}", index)
            chosen.append(tasks[index])
    last = config.first_state + config.num_trials_per_task
    for task in chosen:
        if last > task.num_states:
            expected = f"at most {task.num_states} with --first-state, the initial states of {task.suite} {task.index}"
            raise InvalidRequest("--num-trials-per-task", expected, last)
    return chosen


def episodes_of(config: RunConfig, tasks: Iterable[TaskInfo]) -> list[Episode]:
    """Every episode of a run. Those of one task follow each other, because another task makes a new scene."""
    states = range(config.first_state, config.first_state + config.num_trials_per_task)
    return [
        Episode(cell, task, state_index, _seed(config, task, state_index), config.shift)
        for task in tasks
        for state_index in states
        for cell in config.cells
    ]


def _seed(config: RunConfig, task: TaskInfo, state_index: int) -> int:
    """A shifted start has a seed that no demonstration has, because the seed says where the objects are."""
    return shifted_seed(task, state_index, config.seed) if config.shift else config.seed + state_index
